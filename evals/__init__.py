"""How well documents are searched and answered from, measured over HTTP: `python -m evals`. See docs/evaluation.md."""
