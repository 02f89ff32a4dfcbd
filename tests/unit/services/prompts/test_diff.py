"""The diff of two texts: difflib's where that is quick, and true wherever it isn't."""

import difflib
import random
import re

import pytest

from backend.services.prompts.diff import unified

NAMES = ("version 1", "version 2")


def woven(letter: str, lines: int) -> list[str]:
    """Lines of which every other one is a common one: what difflib takes minutes for."""
    return [line for n in range(lines // 2) for line in (str(n % 50), f"{letter}{n}")]


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_one_that_difflib_makes(seed: int) -> None:
    r = random.Random(seed)
    before = [str(n) for n in range(r.randrange(1, 40))]
    after = [line for line in before if r.random() < 0.8]
    after.insert(r.randrange(len(after) + 1), "new")
    assert unified(before, after, NAMES).split("\n") == list(difflib.unified_diff(before, after, *NAMES, lineterm=""))


def patched(before: list[str], diff: str) -> list[str]:
    """What a unified diff makes of a text; what it says of the text must be so."""
    after: list[str] = []
    at = 0
    for line in diff.split("\n")[2:]:
        if hunk := re.fullmatch(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@", line):
            after += before[at : int(hunk[1]) - 1]
            at = int(hunk[1]) - 1
            assert len(after) == int(hunk[2]) - 1
            continue
        if line[0] in " -":
            assert before[at] == line[1:]
            at += 1
        if line[0] in " +":
            after.append(line[1:])
    return after + before[at:]


@pytest.mark.parametrize("lines", [10, 500, 502, 20_000])
def test_it_turns_the_one_text_into_the_other(lines: int) -> None:
    before = ["head", *woven("a", lines), "tail"]
    after = ["head", *woven("b", lines), "another", "tail"]
    assert patched(before, unified(before, after, NAMES)) == after


def test_texts_of_the_largest_size_are_not_compared_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    class Watched(difflib.SequenceMatcher[str]):
        def __init__(self, isjunk: None, a: list[str], b: list[str]) -> None:
            compared.append(max(len(a), len(b)))
            super().__init__(isjunk, a, b)

    monkeypatch.setattr(difflib, "SequenceMatcher", Watched)
    diff = unified(["same", *woven("a", 20_000)], ["same", *woven("b", 20_000)], NAMES)
    assert diff.startswith("--- version 1\n+++ version 2\n@@ -1,20001 +1,20001 @@\n same\n 0\n-a0\n")
    assert not compared
    unified(["same", *woven("a", 500)], ["same", *woven("b", 500)], NAMES)
    assert compared == [499]


def test_nothing_is_a_text_too() -> None:
    assert unified([], ["a", "b"], NAMES) == "--- version 1\n+++ version 2\n@@ -0,0 +1,2 @@\n+a\n+b"
    assert unified(["a"], [], NAMES) == "--- version 1\n+++ version 2\n@@ -1 +0,0 @@\n-a"
