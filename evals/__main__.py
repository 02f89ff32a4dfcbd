"""How well documents are searched and answered from.

`python -m evals` measures the sets found in a folder, each on a server of its own. `python -m evals FILE.csv` measures
your own questions on a server that runs and has the documents. See docs/evaluation.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.process import ROOT, BenchError

from . import ablation, of_questions, of_sets
from .questions import EvalError

_BASE = "http://127.0.0.1:8001"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = _measured(options)
    except (EvalError, BenchError) as error:
        print(f"evals: {error}", file=sys.stderr)
        return 1
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if options.file:
        return _of_questions(options)
    if options.ablation:
        return ablation.run(options.data, options.sets)
    return of_sets.run(options.data, options.sets, options.answers)


def _of_questions(options: argparse.Namespace) -> dict[str, Any]:
    model = None if options.model == "none" else options.model
    configured = of_questions.configurations(options.base or [_BASE], options.compare or [], model)
    return of_questions.run(options.file, configured, options.key, options.k)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evals", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.csv", help="your own questions")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures there, as JSON")
    sets = parser.add_argument_group("sets")
    data = Path(os.environ.get("EVAL_DATA") or ROOT / "eval-data")
    sets.add_argument("--data", type=Path, default=data, help="where the sets are (EVAL_DATA, else eval-data/)")
    sets.add_argument("--sets", nargs="+", metavar="NAME", help="only these")
    sets.add_argument("--answers", type=int, default=100, metavar="N", help="questions a set that are asked as well")
    sets.add_argument("--ablation", action="store_true", help="what each part of the search is worth on the sets")
    own = parser.add_argument_group("your own questions")
    own.add_argument("--base", action="append", metavar="URL", help=f"the server ({_BASE}); twice: two are compared")
    own.add_argument("--key", help="one of its API_KEYS")
    own.add_argument("--compare", nargs=2, metavar="BODY", help='two search bodies, JSON: \'{"mode": "dense"}\'')
    own.add_argument("--model", default=of_sets.MODEL, help="which one answers (%(default)s); `none` asks nothing")
    own.add_argument("--k", type=int, default=5, help="passages that count as found (%(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
