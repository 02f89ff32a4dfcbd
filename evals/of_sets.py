"""`python -m evals`: the sets found in a folder, each on a server of its own, beside the plain dense recipe."""

import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.ingest import EMBEDDED
from bench.process import ANY_CORE, Server

from . import report
from .client import Client, searches
from .compare import Figures, mean
from .dense import DenseRecipe
from .measure import Answered, Searched, answered, say, say_what_is_left_out, searched
from .questions import Question, located
from .sets import DataSet, load

T = TypeVar("T")
MODEL = "extractive/quotes"
PLAIN = "plain dense recipe"
_K = 5
_SEED = 0


def run(folder: Path, only: list[str] | None, asked: int) -> dict[str, Any]:
    """Measure and print; `asked` questions of each set go to the extractive model. The report, for JSON.

    Raises EvalError.
    """
    sets = load(folder, only)
    searches_of: dict[str, dict[str, Figures]] = {}
    answers_of: dict[str, Figures] = {}
    for each in sets:
        strange = _sample([row.question for other in sets if other is not each for row in other.rows], asked)
        searches_of[each.name], answers_of[each.name] = _measured(each, asked, strange)
    rows = {f"{name}, {label}": row for name, found in searches_of.items() for label, row in found.items()}
    report.print_figures("set, search", rows)
    if asked:
        report.print_figures(f"answers of {MODEL}", answers_of)
    first = {name: next(iter(found.values())) for name, found in searches_of.items()}
    report.print_goals(first, {name: found[PLAIN] for name, found in searches_of.items()})
    return {"search": searches_of, "answers": answers_of}


def _measured(data: DataSet, asked: int, strange: list[str]) -> tuple[dict[str, Figures], Figures]:
    """Figures of each search body and of the plain recipe, and of the answers."""
    with tempfile.TemporaryDirectory() as name:
        env = {**EMBEDDED, "DATA_DIR": f"{name}/data"}
        with Server(("backend.main",), "/ready", env, core=ANY_CORE) as server, Client(server.url) as client:
            say(f"{data.name}: {len(data.files)} documents, {data.megabytes:.1f} MB ...")
            began = time.perf_counter()
            ids = client.upload(data.files)
            seconds = time.perf_counter() - began
            questions = located(data.rows, client)
            say_what_is_left_out(client, questions)
            found: dict[str, Figures] = {}
            for label, body in searches(client.modes).items():
                say(f"{data.name}: {len(questions)} questions, {label} ...")
                result = searched(lambda question, body=body: client.search(question, body), questions, _K)
                found[label] = _row(data, result, seconds)
            answers = _answers(client, questions, asked, strange) if asked else {}
        say(f"{data.name}: {PLAIN} ...")
        with DenseRecipe(Path(name)) as dense:
            seconds = dense.add({ids[file]: (file, content) for file, content in data.files.items()})
            found[PLAIN] = _row(data, searched(dense.search, questions, _K), seconds)
    return found, answers


def _row(data: DataSet, result: Searched, seconds: float) -> Figures:
    speed = "PDF MB/min" if data.is_pdf else "text MB/min"
    times = {"p50 ms": result.milliseconds(50), "p95 ms": result.milliseconds(95)}
    return {**result.means(), **times, speed: data.megabytes / seconds * 60}


def _answers(client: Client, questions: list[Question], asked: int, strange: list[str]) -> Figures:
    """`strange`: questions about another set's documents, which these don't answer."""
    own = [replace(q, history=()) for q in _sample([q for q in questions if not q.history], asked)]
    say(f"{len(own)} questions, and {len(strange)} about other sets, {MODEL} ...")
    result: Answered = answered(client, [*own, *(Question(text) for text in strange)], MODEL)
    return mean(result.figures)


def _sample(items: list[T], count: int) -> list[T]:
    return random.Random(_SEED).sample(items, min(count, len(items)))
