"""`python -m evals FILE.csv`: somebody's own questions, asked of servers that run and have the documents."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import report
from .client import Body, Client
from .compare import Figures, differences, mean
from .measure import Answered, Searched, answered, say, say_what_is_left_out, searched
from .questions import EvalError, Row, located, read_csv


@dataclass(frozen=True)
class Configuration:
    """A server and how it is searched. `model` answers; None: nothing is asked."""

    label: str
    base: str
    body: Body
    model: str | None


@dataclass
class Measured:
    """What came of a configuration."""

    searched: Searched
    answered: Answered

    def summary(self) -> Figures:
        """All means; times in ms."""
        times = {"p50 ms": self.searched.milliseconds(50), "p95 ms": self.searched.milliseconds(95)}
        return {**self.searched.means(), **mean(self.answered.figures), **(times if self.searched.seconds else {})}


def configurations(bases: Sequence[str], bodies: Sequence[str], model: str | None) -> list[Configuration]:
    """One, or two to compare: two servers, or two search bodies (JSON) at one server, whose answers are the same
    either way and are not asked. Raises EvalError."""
    if len(bases) > 2 or (len(bases) == 2 and bodies):
        raise EvalError("Two can be compared: give two --base, or one and --compare with two search bodies.")
    if bodies:
        return [Configuration(body, bases[0], _body(body), None) for body in bodies]
    return [Configuration(base, base, {}, model) for base in bases]


def _body(text: str) -> Body:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise EvalError(f'--compare: {text!r} is no JSON object. Write for example \'{{"mode": "dense"}}\'.')
    return body


def run(path: Path, configured: Sequence[Configuration], key: str | None, k: int) -> dict[str, Any]:
    """Measure and print. The report, for JSON. Raises EvalError."""
    rows = read_csv(path)
    found = [_measured(rows, each, key, k) for each in configured]
    labels = [each.label for each in configured]
    for label, each in zip(labels, found, strict=True):
        if each.answered.failures:
            failures = each.answered.failures
            say(f"{label}: {len(failures)} answers failed and are left out, the first one: {failures[0]}")
    summaries = {label: each.summary() for label, each in zip(labels, found, strict=True)}
    if len(found) == 1:
        report.print_list(f"{len(rows)} questions", labels[0], summaries[labels[0]])
        return {"figures": summaries[labels[0]]}
    if len(set(labels)) == 1:
        raise EvalError("Both configurations are the same: there is nothing to compare.")
    one, other = found
    gaps = {
        **differences(one.searched.figures, other.searched.figures),
        **differences(one.answered.figures, other.answered.figures),
    }
    report.print_differences(labels, gaps)
    report.print_figures("search", {label: _times(row) for label, row in summaries.items()})
    return {"figures": summaries, "differences": {name: asdict(gap) for name, gap in gaps.items()}}


def _times(row: Figures) -> Figures:
    return {name: value for name, value in row.items() if name.endswith(" ms")}


def _measured(rows: list[Row], configuration: Configuration, key: str | None, k: int) -> Measured:
    with Client(configuration.base, key) as client:
        questions = located(rows, client)
        say_what_is_left_out(client, questions)
        say(f"{configuration.label}: {len(questions)} questions ...")
        found = searched(lambda question: client.search(question, configuration.body), questions, k)
        asked = answered(client, questions, configuration.model) if configuration.model else Answered()
    return Measured(found, asked)
