"""`python -m evals --ablation`: each part of the search switched off, over the same questions: what it is worth."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ingest import EMBEDDED
from bench.process import ANY_CORE, Server

from . import report
from .client import Body, Client
from .compare import Figures, differences, mean
from .measure import say, searched
from .questions import located
from .sets import DataSet, load
from .switched import SWITCHES

_K = 5
_ALL_ON = ""


def run(folder: Path, only: list[str] | None) -> dict[str, Any]:
    """Measure and print; the report, for JSON. Raises EvalError."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for data in load(folder, only):
        with tempfile.TemporaryDirectory() as name:
            figures = dict(_measured(data, Path(name)))
        base = figures.pop(_ALL_ON)
        report.print_ablation(data.name, mean(base), {part: differences(base, each) for part, each in figures.items()})
        found[data.name] = {"all on": mean(base), **{part: mean(each) for part, each in figures.items()}}
    return {"ablation": found}


def _measured(data: DataSet, folder: Path) -> Iterator[tuple[str, list[Figures]]]:
    """Figures of each question with everything on, by the name `_ALL_ON`, then without each leg and each part."""
    indexed = folder / "all"
    with _serving(indexed, _ALL_ON) as client:
        say(f"{data.name}: {len(data.files)} documents ...")
        client.upload(data.files)
        yield _ALL_ON, _asked(client, data, {})
        yield "the dense leg", _asked(client, data, {"mode": "lexical"})
        yield "the lexical leg", _asked(client, data, {"mode": "dense"})
    for number, (part, switch) in enumerate(SWITCHES.items()):
        say(f"{data.name}: without {part} ...")
        with _serving(folder / str(number) if switch.indexed else indexed, part) as client:
            if switch.indexed:
                client.upload(data.files)
            yield part, _asked(client, data, {})


@contextmanager
def _serving(folder: Path, part: str) -> Iterator[Client]:
    env = {**EMBEDDED, "DATA_DIR": str(folder), "SWITCHED_OFF": part}
    with Server(("evals.switched",), "/ready", env, core=ANY_CORE) as server, Client(server.url) as client:
        yield client


def _asked(client: Client, data: DataSet, body: Body) -> list[Figures]:
    questions = located(data.rows, client)
    return searched(lambda question: client.search(question, body), questions, _K).figures
