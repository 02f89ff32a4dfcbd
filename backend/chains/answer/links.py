"""Replaces links and images that only the model wrote by plain text, while the text streams.

A document may tell a model to write `![](https://its.host/?what-it-knows)`. A client that renders this image sends the
data to that host. So a URL may pass only if it occurs, complete, in the passages or in the user's messages, or if its
host is allowed.

Renderers differ, so this module doesn't parse Markdown. It looks for each sequence that can begin a URL for any
renderer. If the URL isn't known, it breaks the sequence: `](` becomes `] (`, `<img` becomes `< img`, `https://a.b`
becomes `https[://]a[.]b`. A broken sequence can't become a link again, whatever text surrounds it. Text that is
certainly code is not changed (`code_blocks.py`).
"""

import html
import re
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from backend.chains.answer.code_blocks import Code
from backend.chains.answer.urls import BALANCED, CHARS, LONGEST, KnownUrls, defang, trim_punctuation

Between = TypeVar("Between")

_TRIGGER = re.compile(r"!?\[|!\Z|\]|<|\\?:|w{3}\\?\.|w{1,3}\\?\Z|\\|//|/\Z|&|`+|~{3,}|~{1,2}\Z|\$", re.I)
_GAP = r"[ \t]{0,20}+\n?+[ \t]{0,20}+"
_LABEL = r"[^\[\]<>`\\\n]{0,300}"
_DESTINATION = rf"(?:<([^<>\n]*)>|({BALANCED}))"
_DESTINATION_PREFIX = rf"(?:<[^<>\n]*+>?|{BALANCED}(?:\({CHARS}*+)?)"
_QUOTED = r"[^\"'<>\[\]`\n\\:&]{0,200}"
_TITLE = rf"(?:\"{_QUOTED}\"|'{_QUOTED}')"
_LINK = re.compile(rf"!?\[({_LABEL})\]\({_GAP}{_DESTINATION}(?:[ \t]{{1,20}}{_TITLE})?[ \t]{{0,20}}\)")
_LINK_PREFIX = re.compile(
    rf"!?(?:\[{_LABEL}(?:\](?:\({_GAP}{_DESTINATION_PREFIX}"
    rf"(?:[ \t]{{1,20}}(?:[\"']{_QUOTED}[\"']?)?[ \t]{{0,20}})?)?)?)?\Z"
)
# A label without URLs and markup.
_PLAIN_LABEL = re.compile(r"(?![(:])(?:(?!//|www\.|:\S|&).)*", re.I)
_TARGET = re.compile(rf"\]\({_GAP}{_DESTINATION}(?=[\s)])")
_TARGET_PREFIX = re.compile(rf"\](?:\({_GAP}{_DESTINATION_PREFIX})?\Z")
_DEFINITION = re.compile(rf"\]:{_GAP}(?:<([^<>\n]*)>|([^\s<]\S*))(?=\s|\Z)")
_DEFINITION_PREFIX = re.compile(rf"\](?::{_GAP}(?:<[^<>\n]*+>?|[^\s<]\S*+)?)?\Z")
# `[note]: words and more` is no link definition: after the URL of a definition, only a title in quotes may follow.
_PROSE = re.compile(r"\]:[ \t]{0,20}[\w,;.'’\-]+[ \t]+[^\s\"'(]")
_PROSE_PREFIX = re.compile(r"\]:[ \t]{0,20}(?:[\w,;.'’\-]+[ \t]*)?\Z")
_URL = re.compile(rf"(\\?:\\?/\\?/|//|www\\?\.|:)({CHARS}*)", re.I)
_URL_PREFIX = re.compile(r"(?:\\?(?::(?:\\?(?:/\\?)?)?)?|/|w{1,3}\\?)\Z", re.I)
_SCHEME = re.compile(r"[A-Za-z]+\Z")
_HOST = re.compile(r"[.:@^`|]|localhost|[^\x00-\x7f\s]", re.I)
_AUTOLINK = re.compile(rf"<([A-Za-z][A-Za-z0-9+.\-]{{1,31}}:{CHARS}*)>")
_EMAIL = re.compile(r"<[\w.+\-]{1,64}@[\w.\-]{1,200}>", re.A)
_QUOTED_PREFIX = r"(?:\"[^\"<>\n]*|'[^'<>\n]*)"
_ATTRIBUTE = r"""[ \t]+([A-Za-z][\w\-]*)(?:[ \t]*=[ \t]*("[^"<>\n]*"|'[^'<>\n]*'|[^\s"'=<>`]+))?"""
_ATTRIBUTES = re.compile(_ATTRIBUTE)
_OPENING = rf"</?[A-Za-z][A-Za-z0-9\-]*(?:{_ATTRIBUTE}){{0,12}}+"
_TAG = re.compile(rf"{_OPENING}[ \t]*/?>")
_ANGLE_PREFIX = re.compile(
    rf"<(?:/?|{_OPENING[1:]}(?:[ \t]+(?:[A-Za-z][\w\-]*)?)?(?:[ \t]*=[ \t]*{_QUOTED_PREFIX}?)?[ \t]*/?"
    rf"|[A-Za-z][A-Za-z0-9+.\-]{{1,31}}:{CHARS}*|[\w.+\-]{{1,64}}(?:@[\w.\-]{{0,200}})?)\Z"
)
_MARKUP = re.compile(r"<[A-Za-z/!?]")
_PLAIN_VALUE = re.compile(r"[\w ,%+\-]*")
_NAME = re.compile(r"[A-Za-z][\w\-]*")
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#x[0-9a-f]{1,8}|[a-z]{2,31});", re.I)
_ENTITY_PREFIX = re.compile(r"&#?[0-9a-z]{0,31}\Z", re.I)
_URL_CHARACTER = re.compile(r"[A-Za-z0-9:/.@\\\t\n]")
_WORD_CHARACTER = re.compile(r"\w")
# Text that can't contain the end of a URL.
_NO_URL_END = re.compile(r"[\w.\-]+")

_HARMLESS = frozenset("alt align title width height colspan rowspan start type open class id lang dir".split())
_ACTIVE = frozenset(
    "script style iframe frame frameset object embed applet svg math base meta link form input button video audio "
    "source track picture portal template noscript textarea title xmp plaintext".split()
)
_SEPARATORS = frozenset("([{\"'*_—–-|>")
# After a URL: characters that may belong to it, and characters beyond ASCII that don't.
_URL_CONTINUES = frozenset("%/=&?#+@\\")
_CLOSING = frozenset("。，、；：？！”’»）】」』…–—")
_OPENING_BRACKETS = frozenset("[({\"'")
_MAX_READABLE = 200


class _Step(NamedTuple):
    """What to do with the next `length` characters of a window."""

    length: int
    replacement: str | None = None
    """What is emitted instead of the characters; None: the characters themselves."""
    is_broken: bool = False
    """Whether a link was broken."""
    ends_url: bool = False
    """Whether a known URL ends here. The text after it must not become part of the URL."""


class LinkFilter(Generic[Between]):
    """Breaks unknown links and images in a stream of text. The result doesn't depend on how the stream cuts the text.

    Objects between pieces of text (marks) keep their places. Text that may become a link is held back, at most
    `LONGEST` characters. `broken` counts the links and images that became text.
    """

    def __init__(self, known: KnownUrls) -> None:
        self.broken = 0
        self._known = known
        self._buffer = ""
        self._between: list[tuple[int, Between]] = []  # with their positions in `_buffer`
        self._is_in_url = False
        self._code = Code()
        self._last = ""  # the last characters that were emitted
        self._follows_url = False
        self._has_bracket = False

    def feed(self, piece: str | Between) -> Iterator[str | Between]:
        """The text and objects that can be emitted now."""
        if not isinstance(piece, str):
            if self._buffer:
                self._between.append((len(self._buffer), piece))
            else:
                yield piece
            return
        self._buffer += piece
        if self._is_in_url and len(self._buffer) < LONGEST and _NO_URL_END.fullmatch(piece):
            return
        yield from self._scan(closing=False)

    def close(self) -> Iterator[str | Between]:
        """The text and objects that were held back; the text has ended."""
        yield from self._scan(closing=True)

    def _scan(self, *, closing: bool) -> Iterator[str | Between]:
        text = self._buffer
        between = self._between
        self._between, self._is_in_url = [], False
        position = 0
        while position < len(text):
            if self._code.is_in_block:
                end = self._code.line_end(text, position, is_end=closing)
                if end is None:
                    break
                yield from self._emit(text, position, end, None, between)
                position = end
                continue
            match = _TRIGGER.search(text, position)
            start = match.start() if match is not None else len(text)
            if start > position:
                yield from self._emit(text, position, start, None, between)
                position = start
            if match is None:
                break
            step = self._step(text[start : start + LONGEST], closing, is_cut=len(text) > start + LONGEST)
            if step is None:
                break
            self.broken += step.is_broken
            yield from self._emit(text, start, start + step.length, step.replacement, between)
            if step.ends_url:
                self._follows_url, self._has_bracket = True, False
            position = start + step.length
        self._buffer = text[position:]
        self._between = [(place - position, item) for place, item in between]

    def _emit(
        self, text: str, start: int, end: int, replacement: str | None, between: list[tuple[int, Between]]
    ) -> Iterator[str | Between]:
        """`text[start:end]` or its replacement, with the objects between its characters or after them."""
        while between and between[0][0] <= end:
            place, item = between.pop(0)
            if replacement is None and place > start:
                yield self._record(text[start:place])
                start = place
            elif replacement:
                yield self._record(replacement)
                start, replacement = end, ""
            yield item
        rest = text[start:end] if replacement is None else replacement
        if rest:
            yield self._record(rest)

    def _record(self, text: str) -> str:
        if self._follows_url:
            text = self._separate_from_url(text)
        self._code.add(text)
        self._last = (self._last + text)[-40:]
        return text

    def _separate_from_url(self, text: str) -> str:
        """The text after a URL, with a blank before characters that some renderers would add to the URL."""
        for position, char in enumerate(text):
            more = char.isalnum() or char in _URL_CONTINUES or (char > "\x7f" and char not in _CLOSING)
            if more or char.isspace() or char == "<":
                self._follows_url = False
                # For some renderers, markup in brackets belongs to the URL.
                return f"{text[:position]} {text[position:]}" if more or (char == "<" and self._has_bracket) else text
            self._has_bracket |= char in _OPENING_BRACKETS
        return text

    def _step(self, window: str, closing: bool, *, is_cut: bool) -> _Step | None:
        """What to do with the beginning of the window. None if more text is needed to decide."""
        is_end = closing or len(window) == LONGEST
        match window[0]:
            case "`" | "~":
                if self._follows_url and window[0] == "`":  # some renderers add it to the URL
                    self._code.add_doubt("paragraph")
                length = self._code.opening_length(window, is_end=is_end)
                return _Step(length) if length is not None else None
            case "[" | "!":
                return self._link(window, is_end)
            case "]":
                return self._behind_label(window, is_end, is_cut)
            case "<":
                return self._angle(window, is_end)
            case "&":
                return self._entity(window, is_end)
            case "$":
                self._code.add_doubt("forever" if self._last.endswith("$") else "paragraph")
                return _Step(1)
            case "\\" if not _URL.match(window) and (is_end or not _URL_PREFIX.match(window)):
                return self._escape(window)
            case _:
                return self._bare(window, is_end, is_cut)

    def _link(self, window: str, is_end: bool) -> _Step | None:
        """Handles a complete and simple `[text](url)` or `![alt](url)`. For others, `_behind_label` decides later."""
        image = window[0] == "!"
        match = _LINK.match(window)
        if match is None:
            if not is_end and _LINK_PREFIX.match(window):
                self._is_in_url = "](" in window
                return None
            return _Step(2 if window.startswith("![") else 1)
        label, url = match[1], match[2] if match[2] is not None else match[3]
        known = self._known.contains(url)
        if not _PLAIN_LABEL.fullmatch(label) and not (known and self._known.contains(label.strip())):
            return _Step(2 if image else 1)
        if known:
            return _Step(match.end(), ends_url=self._code.doubt != "none")
        readable = self._readable(url)
        note = (
            f"image removed: {readable}"
            if image and readable
            else readable or f"{'image' if image else 'link'} removed"
        )
        return _Step(match.end(), self._separate(f"{label} ({note})".lstrip()), is_broken=True)

    def _behind_label(self, window: str, is_end: bool, is_cut: bool) -> _Step | None:
        """Handles `](url` and `]: url`."""
        match window[1:2]:
            case "(":
                pattern, prefix, opening = _TARGET, _TARGET_PREFIX, "] ("
            case ":":
                if _PROSE.match(window):
                    return _Step(2)
                if not is_end and _PROSE_PREFIX.match(window):
                    self._is_in_url = len(window) > 2
                    return None
                pattern, prefix, opening = _DEFINITION, _DEFINITION_PREFIX, "] :"
            case "":
                return _Step(1) if is_end else None
            case _:
                return _Step(1)
        match = pattern.match(window)
        if not is_end and (
            (match is None and prefix.match(window)) or (match is not None and match.end() == len(window))
        ):
            self._is_in_url = True
            return None
        if match is None:
            # A definition without a URL is harmless, but `](` may begin any link.
            return _Step(2, opening, is_broken=True) if window[1] == "(" else _Step(2)
        url = match[1] if match[1] is not None else match[2]
        if self._known.contains(url) and not (is_cut and match.end() == len(window)):
            self._code.add_doubt("paragraph")  # a title with a backtick may follow
            return _Step(match.end(), ends_url=True)
        gap = " " if window[1] == ":" else ""
        return _Step(match.end(), f"{opening}{gap}{self._readable(url) or 'link removed'}", is_broken=True)

    def _angle(self, window: str, is_end: bool) -> _Step | None:
        """Handles `<url>`, `<name@host>` and HTML."""
        if (match := _AUTOLINK.match(window)) is not None:
            if self._known.contains(match[1]):
                return _Step(match.end(), ends_url=True)
            if "//" in match[1] or match[1].casefold().startswith("mailto:"):
                return _Step(match.end(), self._separate(self._readable(match[1])), is_broken=True)
            return _Step(1, "< ")
        if (match := _EMAIL.match(window)) is not None:
            return _Step(match.end())
        if (match := _TAG.match(window)) is not None:
            return self._tag(match.group())
        if not is_end and _ANGLE_PREFIX.match(window):
            self._is_in_url = True
            return None
        return _Step(1, "< ") if _MARKUP.match(window) else _Step(1)

    def _tag(self, tag: str) -> _Step:
        """Handles an HTML tag. It passes if all its attributes are harmless or known URLs."""
        opening = _NAME.search(tag)
        assert opening is not None
        name = opening.group().casefold()
        url = ""
        safe = name not in _ACTIVE
        for attribute, value in _ATTRIBUTES.findall(tag, opening.end()):
            value = value.strip("\"'")
            if attribute.casefold() in ("href", "src"):
                url = value
                safe = safe and self._known.contains(value)
            elif value and (attribute.casefold() not in _HARMLESS or not _PLAIN_VALUE.fullmatch(value)):
                safe = False
        if safe:
            self._code.add_doubt("forever" if name == "pre" else "paragraph")
            return _Step(len(tag), ends_url=bool(url))
        if name in ("a", "img") and url:
            kind = "image" if name == "img" else "link"
            return _Step(len(tag), self._separate(f"({kind} removed: {self._readable(url)})"), is_broken=True)
        return _Step(1, "< ", is_broken=True)

    def _bare(self, window: str, is_end: bool, is_cut: bool) -> _Step | None:
        """Handles `https://…`, `www.…`, `//…`, `mailto:…`."""
        match = _URL.match(window)
        if not is_end and (_URL_PREFIX.match(window) or (match is not None and match.end() == len(window))):
            self._is_in_url = len(window) > 4
            return None
        if match is None:
            return _Step(1)
        opening, rest = match[1], match[2]
        scheme = _SCHEME.search(self._last)
        named = scheme.group().casefold() if scheme is not None else ""
        next_character = window[match.end(1) : match.end(1) + 1]
        if (
            not next_character.strip()
            or (opening == ":" and not named.endswith(("mailto", "xmpp")))
            or (opening == "//" and not _HOST.search(window, 2, match.end() + 1))
        ):
            return _Step(len(opening))
        body = trim_punctuation(rest)
        url = (named if ":" in opening else "") + opening + body
        if (self._known.contains(url) or (opening == ":" and "?" not in body)) and not (
            is_cut and match.end() == len(window)
        ):
            return _Step(len(opening) + len(body), ends_url=True)
        return self._broken(opening, body)

    def _broken(self, opening: str, body: str) -> _Step:
        if opening == "//":
            return _Step(2 + len(body), defang(opening + body), is_broken=True)
        plain = opening.replace("\\", "")
        inside = plain if plain[0] == ":" else plain[-1]
        # A bracket must not come before a parenthesis: `](` would begin another.
        gap = "" if _WORD_CHARACTER.match(body) else " "
        broken = f"{plain.removesuffix(inside)}[{inside}]{gap}{defang(body)}"
        return _Step(len(opening) + len(body), broken, is_broken=True)

    def _entity(self, window: str, is_end: bool) -> _Step | None:
        """Breaks entities for characters of URLs: for a renderer, `&#58;` is a colon."""
        match = _ENTITY.match(window)
        if match is None:
            return None if not is_end and _ENTITY_PREFIX.match(window) else _Step(1)
        return _Step(1, "&amp;") if _URL_CHARACTER.fullmatch(html.unescape(match.group())) else _Step(1)

    def _escape(self, window: str) -> _Step:
        r"""Handles escapes: `\[` opens no link and an escaped backtick no code, but a formula may begin here."""
        if window[1:2] in ("[", "("):
            self._code.add_doubt("paragraph")
        return _Step(2 if window[1:2] in ("\\", "`", "[", "$", "(") else 1)

    def _readable(self, url: str) -> str:
        """The URL as text for people, at most `_MAX_READABLE` characters; empty if it has characters beyond `CHARS`."""
        if not re.fullmatch(f"{CHARS}+", url):
            return ""
        return defang(url if len(url) <= _MAX_READABLE else f"{trim_punctuation(url[:_MAX_READABLE])}…")

    def _separate(self, text: str) -> str:
        """Text that replaces markup, with a blank in front if the text before it could make another link of it."""
        before = self._last[-1:]
        return text if not before.strip() or before in _SEPARATORS else f" {text}"
