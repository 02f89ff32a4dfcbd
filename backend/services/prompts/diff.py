"""Unified diffs of two texts, line by line."""

import difflib
from collections.abc import Sequence
from typing import Any

_MAX_LINES = 500
"""The most changed lines that difflib compares. Its time grows with their cube: 500 lines take up to 0.1 s."""
_CONTEXT = 3


class _KnownOpcodes(difflib.SequenceMatcher[str]):
    """A matcher with known opcodes, from which difflib makes hunks."""

    def __init__(self, opcodes: list[Any]) -> None:
        super().__init__(None, "", "")
        self._known = opcodes

    def get_opcodes(self) -> list[Any]:
        return self._known


def unified(before: Sequence[str], after: Sequence[str], names: tuple[str, str]) -> str:
    """A unified diff. If there are too many lines between the first change and the last, they are one change."""
    lines = [f"--- {names[0]}", f"+++ {names[1]}"]
    for group in _KnownOpcodes(_opcodes(before, after)).get_grouped_opcodes(_CONTEXT):
        old, new = _range(group[0][1], group[-1][2]), _range(group[0][3], group[-1][4])
        lines.append(f"@@ -{old} +{new} @@")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in before[i1:i2]]
            else:
                lines += [f"-{line}" for line in before[i1:i2]]
                lines += [f"+{line}" for line in after[j1:j2]]
    return "\n".join(lines)


def _opcodes(before: Sequence[str], after: Sequence[str]) -> list[Any]:
    """The opcodes of the two texts, like those of `SequenceMatcher`."""
    shorter = min(len(before), len(after))
    head = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    tail = next((n for n in range(shorter - head) if before[-1 - n] != after[-1 - n]), shorter - head)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    codes: list[Any] = [("replace", 0, len(old), 0, len(new))]
    if max(len(old), len(new)) <= _MAX_LINES:
        codes = difflib.SequenceMatcher(None, old, new).get_opcodes()
    opcodes: list[Any] = [("equal", 0, head, 0, head)]
    opcodes += [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in codes]
    opcodes.append(("equal", len(before) - tail, len(before), len(after) - tail, len(after)))
    return [code for code in opcodes if code[1] < code[2] or code[3] < code[4]]


def _range(start: int, stop: int) -> str:
    """A range of lines for the head of a hunk: the first line and the count; without the count if it is one."""
    count = stop - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"
