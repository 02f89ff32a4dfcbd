"""Finds the code in a Markdown text that streams: only text that every renderer shows as code.

Renderers differ about code after a stray backtick, in HTML, in math and in tables. Such a place is a doubt: after it,
nothing counts as code until an empty line, or until the end of the text.
"""

import re
from dataclasses import dataclass
from typing import Literal

Doubt = Literal["none", "paragraph", "forever"]
_LONGEST_LINE = 300
_INDENT = re.compile(r" {0,3}\Z")
_CONTAINER = re.compile(r"[\s>*+\-:.)\]\d]*\Z")
_EMPTY = re.compile(r"(?:\A|\n)[ \t]*\n")
_RUNS = re.compile(r"`+|\n")
_MAYBE_CLOSES = re.compile(r"[ \t]*[`~]*[ \t]*\Z")
_MAYBE_TABLE = re.compile(r"[|:\- \t]*\Z")
_INFO = re.compile(r"(?:[\w .+#{}=,\"\-]|/(?!/))*")


@dataclass(slots=True)
class _Fence:
    """An open block of code: the character and length of its fence, its indent, and whether it has a complete line."""

    char: str
    length: int
    indent: int
    has_line: bool = False


class Code:
    """Follows a text. `add` takes all text that is emitted. `opening_length` is called where code may begin, and
    `line_end` inside of a block."""

    def __init__(self) -> None:
        self.line = ""
        """The beginning of the current line, up to the last emitted character."""
        self.doubt: Doubt = "none"
        self._fence: _Fence | None = None

    @property
    def is_in_block(self) -> bool:
        """Whether a block of code is open."""
        return self._fence is not None

    def add(self, text: str) -> None:
        """Take emitted text."""
        if "\r" in text:  # only some renderers end a line here
            self.add_doubt("forever")
        last = text.rfind("\n")
        if last < 0:
            if len(self.line) <= _LONGEST_LINE:
                self.line = _shortened(self.line + text)
            return
        if self.doubt == "paragraph" and _EMPTY.search(self.line + text):
            self.doubt = "none"
        self.line = _shortened(text[last + 1 :])

    def add_doubt(self, doubt: Doubt) -> None:
        """From here on, renderers may disagree about what is code."""
        if doubt == "forever":
            self._fence = None
        if self.doubt != "forever":
            self.doubt = doubt

    def opening_length(self, window: str, *, is_end: bool) -> int | None:
        """How many characters of `window` to emit unchanged: a code span, the line that opens a block, or only the
        backticks or tildes with which the window begins. None if more text is needed to decide. `is_end`: there will be
        no more text."""
        run = len(window) - len(window.lstrip(window[0]))
        if run == len(window) and not is_end:
            return None
        begins = run >= 3 and _CONTAINER.match(self.line) is not None
        if self.doubt != "none":
            if begins:
                self.add_doubt("forever")
            return run
        if begins:
            line, newline, _ = window[:_LONGEST_LINE].partition("\n")
            if not newline and not is_end and len(window) < _LONGEST_LINE:
                return None
            if window[0] == "~" or "`" not in line[run:]:
                if _INDENT.match(self.line) and newline and _INFO.fullmatch(line, run):
                    self._fence = _Fence(window[0], run, len(self.line))
                    return len(line) + 1
                self.add_doubt("forever")
                return run
        return self._span(window, run, is_end=is_end) if window[0] == "`" else run

    def _span(self, window: str, run: int, *, is_end: bool) -> int | None:
        """The length of the code span, if it ends on this line and contains no `|`, which may end a table's cell. If
        not, the length of its backticks. None if more text is needed."""
        is_end = is_end or len(window) >= _LONGEST_LINE
        window = window[:_LONGEST_LINE]
        for match in _RUNS.finditer(window, run):
            if match.group() == "\n":
                break
            if match.end() == len(window) and not is_end:
                return None
            if match.end() - match.start() == run:
                if "|" in window[run : match.start()] or "\r" in window[: match.start()]:
                    break
                return match.end()
        else:
            if not is_end:
                return None
        self.add_doubt("forever" if run >= 3 else "paragraph")
        return run

    def line_end(self, text: str, position: int, *, is_end: bool) -> int | None:
        """The end of the text that is code of the open block, at most one line from `position`. None if more text is
        needed to decide.

        The block may be closed afterwards, see `is_in_block`. Then the result may be `position` itself.
        """
        fence = self._fence
        assert fence is not None
        end = text.find("\n", position)
        complete = end >= 0 or is_end
        line = self.line + text[position : end if end >= 0 else len(text)]
        # Some renderers see a table's head here, and no code.
        table = not fence.has_line and _MAYBE_TABLE.match(line) is not None
        if table or _MAYBE_CLOSES.match(line):
            if len(line) >= _LONGEST_LINE or (complete and table and "-" in line):
                self.add_doubt("forever")
                return position
            if not complete:
                return None
        fence.has_line = fence.has_line or complete
        if not self._holds(line):
            return position
        return end + 1 if end >= 0 else len(text)

    def _holds(self, line: str) -> bool:
        """Whether the line belongs to the open block. The line that closes the block belongs to it, too."""
        fence = self._fence
        assert fence is not None
        rest = line.lstrip(" \t")
        indent = line[: len(line) - len(rest)]
        closing = rest.rstrip(" \t")
        closes = len(closing) >= fence.length and not closing.strip(fence.char)
        # A line with less indent than the fence may end the list that contains the block.
        within = not rest or fence.indent == 0 or ("\t" not in indent and len(indent) >= fence.indent)
        if not within or (closes and not _INDENT.match(indent)):
            self.add_doubt("forever")
            return False
        if closes:
            self._fence = None
        return True


def _shortened(line: str) -> str:
    return line[:_LONGEST_LINE] + ("…" if line[_LONGEST_LINE:].strip() else "")
