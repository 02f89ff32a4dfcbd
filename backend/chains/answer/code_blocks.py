"""What of a Markdown text is code for certain, while it streams.

Renderers differ, and a text can be written so that a reader takes for code what a renderer doesn't: after a stray
backtick, in HTML, in math, in a table. So code is only what every renderer shows as code; once that is doubtful,
nothing is code until an empty line has ended the doubt, or to the end.
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
    """An open block of code: the character and length of its fence, how far it is indented, whether it has a line."""

    char: str
    length: int
    indent: int
    begun: bool = False


class Code:
    """Follows a text. Give it all that is emitted (`passed`), and ask it where something like code begins."""

    def __init__(self) -> None:
        self.line = ""
        """The beginning of the current line, as far as it is emitted."""
        self.doubt: Doubt = "none"
        self._fence: _Fence | None = None

    @property
    def fenced(self) -> bool:
        """Whether a block of code is open."""
        return self._fence is not None

    def passed(self, text: str) -> None:
        """This was emitted."""
        if "\r" in text:  # a line's end for some only
            self.doubts("forever")
        last = text.rfind("\n")
        if last < 0:
            if len(self.line) <= _LONGEST_LINE:
                self.line = _shortened(self.line + text)
            return
        if self.doubt == "paragraph" and _EMPTY.search(self.line + text):
            self.doubt = "none"
        self.line = _shortened(text[last + 1 :])

    def doubts(self, how: Doubt) -> None:
        """What comes may be code to one renderer and not to another."""
        if how == "forever":
            self._fence = None
        if self.doubt != "forever":
            self.doubt = how

    def opens(self, window: str, *, whole: bool) -> int | None:
        """How many characters of `window`, which begins with backticks or three tildes, are to be emitted as they are:
        code, the line that opens a block of it, or just these characters. None: more must be known. `whole`: no more
        will be."""
        run = len(window) - len(window.lstrip(window[0]))
        if run == len(window) and not whole:
            return None
        begins = run >= 3 and _CONTAINER.match(self.line) is not None
        if self.doubt != "none":
            if begins:
                self.doubts("forever")
            return run
        if begins:
            line, newline, _ = window[:_LONGEST_LINE].partition("\n")
            if not newline and not whole and len(window) < _LONGEST_LINE:
                return None
            if window[0] == "~" or "`" not in line[run:]:
                if _INDENT.match(self.line) and newline and _INFO.fullmatch(line, run):
                    self._fence = _Fence(window[0], run, len(self.line))
                    return len(line) + 1
                self.doubts("forever")
                return run
        return self._span(window, run, whole=whole) if window[0] == "`" else run

    def _span(self, window: str, run: int, *, whole: bool) -> int | None:
        """A span that begins and ends on this line; a cell of a table would end it before."""
        whole = whole or len(window) >= _LONGEST_LINE
        window = window[:_LONGEST_LINE]
        for found in _RUNS.finditer(window, run):
            if found.group() == "\n":
                break
            if found.end() == len(window) and not whole:
                return None
            if found.end() - found.start() == run:
                if "|" in window[run : found.start()] or "\r" in window[: found.start()]:
                    break
                return found.end()
        else:
            if not whole:
                return None
        self.doubts("forever" if run >= 3 else "paragraph")
        return run

    def line_to(self, text: str, position: int, *, whole: bool) -> int | None:
        """Up to where `text` is to be emitted as code of the open block, at most a line; None: more must be known.

        The block may be closed then (`fenced`), perhaps without a step forward.
        """
        fence = self._fence
        assert fence is not None
        end = text.find("\n", position)
        complete = end >= 0 or whole
        line = self.line + text[position : end if end >= 0 else len(text)]
        # To some, two lines are the head of a table before they are the beginning of code.
        table = not fence.begun and _MAYBE_TABLE.match(line) is not None
        if table or _MAYBE_CLOSES.match(line):
            if len(line) >= _LONGEST_LINE or (complete and table and "-" in line):
                self.doubts("forever")
                return position
            if not complete:
                return None
        fence.begun = fence.begun or complete
        if not self._holds(line):
            return position
        return end + 1 if end >= 0 else len(text)

    def _holds(self, line: str) -> bool:
        """Whether that line is the open block's; its closing line is, and closes it."""
        fence = self._fence
        assert fence is not None
        rest = line.lstrip(" \t")
        indent = line[: len(line) - len(rest)]
        closing = rest.rstrip(" \t")
        closes = len(closing) >= fence.length and not closing.strip(fence.char)
        # What is indented less than the fence may end the list that holds the block.
        within = not rest or fence.indent == 0 or ("\t" not in indent and len(indent) >= fence.indent)
        if not within or (closes and not _INDENT.match(indent)):
            self.doubts("forever")
            return False
        if closes:
            self._fence = None
        return True


def _shortened(line: str) -> str:
    return line[:_LONGEST_LINE] + ("…" if line[_LONGEST_LINE:].strip() else "")
