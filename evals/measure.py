"""Asks all questions and gathers the figures of each."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import answers, metrics
from .client import Answer, Client
from .compare import Figures, mean
from .metrics import Passage
from .questions import EvalError, Question

Search = Callable[[Question], tuple[list[Passage], float]]


@dataclass
class Searched:
    """Figures of each answerable question, in order, and the seconds of each search."""

    figures: list[Figures] = field(default_factory=list)
    follow_ups: list[Figures] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def means(self) -> Figures:
        """Shares of 0 to 1; follow-up questions also on their own."""
        return {**mean(self.figures), **{f"follow-up {name}": value for name, value in mean(self.follow_ups).items()}}

    def milliseconds(self, percent: float) -> float:
        """So many percent of the searches took at most this."""
        return float(np.percentile(self.seconds, percent)) * 1e3


@dataclass
class Answered:
    """Figures of each question whose answer didn't fail, in the order of the questions; `{}` for one that did."""

    figures: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def say(text: str) -> None:
    """How far it is: beside the tables, not in them."""
    print(text, file=sys.stderr, flush=True)


def say_what_is_left_out(client: Client, questions: Sequence[Question]) -> None:
    """Follow-up questions at a server that can't search for them as such."""
    if any(question.history for question in questions) and not client.takes_history:
        say(f"{client.base}: POST /search takes no history: follow-up questions are searched as they stand.")


def searched(search: Search, questions: Sequence[Question], k: int) -> Searched:
    """Search for every answerable question."""
    found = Searched()
    for question in questions:
        if question.answerable:
            passages, seconds = search(question)
            figures = metrics.figures(question, passages, k)
            found.figures.append(figures)
            found.seconds.append(seconds)
            if question.history:
                found.follow_ups.append(figures)
    return found


def answered(client: Client, questions: Sequence[Question], model: str) -> Answered:
    """Ask every question that follows nothing. Raises EvalError when no answer comes at all."""
    found = Answered()
    for question in questions:
        if question.history:
            # POST /chat takes earlier turns from a session alone, and those would be other answers.
            continue
        answer = client.ask(question.text, model)
        found.figures.append(_of(question, answer))
        if answer.failed is not None:
            found.failures.append(answer.failed)
    if found.failures and len(found.failures) == len(found.figures):
        raise EvalError(f"{model} answered no question: {found.failures[0]}")
    return found


def _of(question: Question, answer: Answer) -> Figures:
    return answers.figures(question, answer) if answer.failed is None else {}
