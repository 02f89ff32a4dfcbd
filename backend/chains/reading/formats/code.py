"""Source code, kept as it is. Its definitions are its headings: `class Pilot > def board`.

One rule for every language, in place of a parser for each: a line that looks like a definition, outside of strings and
comments, holds until a line is indented no deeper. Python says so, other languages' formatters see to it, and it also
works on code that does not compile.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.parsed import Context, Heading, ParsedDocument, canonical, one_line
from backend.errors import DocumentUnreadable

# Longer ones were made by a machine.
_MAX_LINE = 400
# What is inside of so many definitions is not one more: its path would be longer than itself.
_MAX_LEVEL = 8

# What strings and comments look like. None of these can fail once begun (what is open ends with its line or with the
# file), so that all of them together take linear time.
_QUOTED = r'"(?:\\.|[^"\\\n])*"?'
_SINGLE = r"'(?:\\.|[^'\\\n])*'?"
_TRIPLE = r"\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)"
_TEMPLATE = r"`(?:\\.|[^`\\])*`?"
_BLOCK = r"/\*.*?(?:\*/|\Z)|//[^\n]*"
_HASH = r"#[^\n]*"
_DASHES = r"--[^\n]*|/\*.*?(?:\*/|\Z)"
# In some languages ' begins other things, too.
_CHARACTER = r"'(?:\\[^'\n]{1,10}|[^'\\\n])'"

_MODIFIERS = r"""(?:(?:export|default|declare|pub(?:\([^)]*\))?|public|private|protected|internal|static|final|abstract
    |sealed|async|unsafe|const|extern|open|override|partial|inline|virtual|data|suspend|typedef|local|case)\s+)*"""
_TYPES = r"class|interface|struct|enum|union|trait|namespace|module|mod|object|record|protocol|extension|defmodule"
_FUNCTIONS = r"function|func|fun|fn|def|defp|sub"
_KEYWORD = rf"""\s*{_MODIFIERS}(?P<title>
    (?:(?P<type>{_TYPES})|{_FUNCTIONS})\b\*?[ \t]*(?:\([^()]*\)[ \t]*)?[\w$.:?!~]++(?!\s*\*|\s+\w+\()
    | (?P<impl>impl\b[^{{]*) | (?P<named>type)\s+\w+(?=\s+(?:struct|interface)\b)
    | (?:const|let|var)\s+[\w$]+(?=\s*(?::[^=]+)?=\s*(?:async\b\s*)?(?:function\b|(?:\([^()]*\)|[\w$]+)[^=]*=>)))"""
_STATEMENT = r"""\s*(?P<title>create\s+(?:or\s+replace\s+)?(?:\w+\s+)?(?:table|view|function|procedure|trigger|type)\s+
    (?:if\s+not\s+exists\s+)?[\w."`]+)"""


@dataclass(frozen=True)
class _Language:
    """`quiet`: strings and comments. `definition`: the beginning of a line that begins a definition, with its `title`;
    a `type`, `impl` or `named` may have definitions inside. `methods`: these have no keyword.
    """

    suffixes: tuple[str, ...]
    quiet: re.Pattern[str]
    definition: re.Pattern[str]
    methods: bool = False


def _language(suffixes: str, quiet: tuple[str, ...], definition: str = _KEYWORD, methods: bool = False) -> _Language:
    flags = re.VERBOSE | re.IGNORECASE if definition is not _KEYWORD else re.VERBOSE
    return _Language(
        tuple(suffixes.split()), re.compile("|".join(quiet), re.DOTALL), re.compile(definition, flags), methods
    )


_LANGUAGES = (
    _language(
        ".py .pyi .pyw", (_TRIPLE, _QUOTED, _SINGLE, _HASH), r"\s*(?P<title>(?:async\s+)?(?:def|(?P<type>class))\s+\w+)"
    ),
    _language(".js .mjs .cjs .jsx .ts .mts .cts .tsx .vue", (_BLOCK, _QUOTED, _SINGLE, _TEMPLATE), methods=True),
    _language(
        ".c .h .cc .cpp .cxx .hpp .hh .java .cs .dart .m .mm", (_BLOCK, _TRIPLE, _QUOTED, _CHARACTER), methods=True
    ),
    _language(".php", (_BLOCK, _HASH, _QUOTED, _SINGLE), methods=True),
    _language(".go .rs .kt .kts .swift .scala .groovy .zig", (_BLOCK, _TRIPLE, _QUOTED, _CHARACTER, _TEMPLATE)),
    _language(".rb .ex .exs .jl .pl .pm .r", (_HASH, _QUOTED, _SINGLE)),
    _language(".lua", (r"--\[\[.*?(?:\]\]|\Z)", r"--[^\n]*", _QUOTED, _SINGLE)),
    _language(
        ".sh .bash .zsh .ksh",
        (r"(?<!\S)#[^\n]*", _QUOTED, _SINGLE),
        r"\s*(?P<title>(?:function\s+)?[\w-]+(?=\s*\(\s*\)|\s*\{))",
    ),
    _language(".sql", (_DASHES, r"'[^']*'?"), _STATEMENT),
)
_SHEBANG = re.compile(r"#!\s*\S+?(?:env\s+)?(?P<program>python|node|ruby|bash|sh|zsh|lua|perl)[\d.]*\s*\n")
_PROGRAMS = {"python": ".py", "node": ".js", "ruby": ".rb", "lua": ".lua", "perl": ".pl"}

_NO_METHODS = re.compile(
    r"(?:if|for|foreach|while|switch|catch|return|else|do|try|new|throw|await|using|lock|match|when|yield|with)\b"
)
_CALLABLE = re.compile(r"([~#\w$:]+)\s*\(")
# Lines that go on with what is above them, though they are indented no deeper.
_GOES_ON = re.compile(
    r"[)\]}{:,|&.?]|->|=>|(?:end|else|elsif|elif|rescue|ensure|catch|finally|where|then|begin|throws|extends|implements"
    r"|returns|as|language)\b"
    r"|(?:public|private|protected|default)\s*:|#\s*(?:if|ifdef|ifndef|else|elif|endif|pragma|region|endregion)\b",
    re.IGNORECASE,
)
# Lines at the beginning of what a definition holds, though they are indented no deeper than it.
_OPENS = re.compile(r"[{):]|->|(?:where|returns|as)\b", re.IGNORECASE)
_ATTACHED = re.compile(r"@|#\[|\[|template\b")


def _of(head: str, name: str) -> _Language | None:
    """The language, by the name, or by the first line of a script that has no ending."""
    suffix = Path(name).suffix.lower()
    shebang = _SHEBANG.match(head)
    if not suffix and shebang:
        suffix = _PROGRAMS.get(shebang["program"], ".sh")
    return next((language for language in _LANGUAGES if suffix in language.suffixes), None)


def _sniff(head: bytes, path: Path, name: str) -> float:
    try:
        text = decode(head, whole=False)
    except NotTextError:
        return 0.0
    return 0.6 if _of(text, name) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        text = canonical(decode(path.read_bytes()))
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no source code but binary data.") from None
    if not text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    language = _of(text[:200], name)
    headings = list(_headings(text, language)) if language else []
    return ParsedDocument(text, PLUGIN.media_type, headings=headings, contexts=[Context(0, len(text))])


@dataclass(frozen=True)
class _Line:
    """A line that is more than strings and comments. `first` is the number of the line where it begins, with what is
    written right above it.
    """

    number: int
    first: int
    indent: int
    text: str


def _headings(text: str, language: _Language) -> Iterator[Heading]:
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = list(_lines(text, language))
    above: list[tuple[int, bool]] = []  # the definitions that are open: their indents, and whether they have others
    for place, line in enumerate(lines):
        following = lines[place + 1] if place + 1 < len(lines) else None
        closed = len(above)
        if not _GOES_ON.match(line.text):
            while above and line.indent <= above[-1][0]:
                above.pop()
        open_ended = len(above) < _MAX_LEVEL and all(holds for _, holds in above)
        found = _title(line, following, language) if open_ended else None
        if found:
            title, holds = found
            yield Heading(starts[line.first], len(above) + 1, title)
            above.append((line.indent, holds))
        elif len(above) < closed:
            yield Heading(starts[line.first], len(above) + 1, "")


def _lines(text: str, language: _Language) -> Iterator[_Line]:
    quiet = language.quiet.sub(_blank, text)
    first = None
    for number, (line, source) in enumerate(zip(quiet.split("\n"), text.split("\n"), strict=True)):
        solid = line.strip()
        if not source.strip():
            first = None
        elif not solid or _ATTACHED.match(solid):
            first = number if first is None else first
        if solid and not (_ATTACHED.match(solid) and first is not None):
            indent = len(line[: -len(line.lstrip())].expandtabs(4))
            yield _Line(number, number if first is None else first, indent, solid)
            first = None


def _blank(match: re.Match[str]) -> str:
    """Spaces, but a string keeps its first mark: it counts as code."""
    mark = match[0][0] if match[0][0] in "\"'`" else " "
    return mark + re.sub(r"[^\n]", " ", match[0][1:])


def _title(line: _Line, following: _Line | None, language: _Language) -> tuple[str, bool] | None:
    """The title of the definition that begins with the line, and whether others can be inside of it; one that ends
    with its line is none.
    """
    if following is None or len(line.text) > _MAX_LINE:
        return None
    if following.indent <= line.indent and not _OPENS.match(following.text):
        return None
    match = language.definition.match(line.text)
    if match:
        title = one_line(match["title"])
        holds = any(match.groupdict().get(kind) for kind in ("type", "impl", "named"))
        return (title, holds) if title else None
    if language.methods and not _NO_METHODS.match(line.text):
        called = _CALLABLE.search(line.text)
        opens = line.text.endswith(("{", "(", ",")) or following.text.startswith("{")
        before = line.text[: called.start()] if called else "="
        if called and opens and not set(before) & set("=(.{;") and "=>" not in line.text:
            return f"{called[1]}()", False
    return None


PLUGIN = Format(
    "code",
    "source code",
    "text/x-source",
    tuple(suffix for language in _LANGUAGES for suffix in language.suffixes),
    _sniff,
    _parse,
)
