"""Links and images in a model's text that nobody but the model wrote: found in the stream, and made text.

A document may tell a model to write `![](https://its.host/?what-it-knows)`; who shows that has sent it. So a URL passes
only when it stood, whole, in the passages or in what the user wrote, or when its host is allowed.

What a renderer makes of a text is for the renderer to know, so this doesn't parse: it looks for each sequence that can
begin a URL for any renderer, and where the URL isn't known, it breaks the sequence where it stands: `](` becomes `] (`,
`<img` becomes `< img`, `https://a.b` becomes `https[://]a[.]b`. What is broken stays so, whatever stands around it.
Code is left alone where it is code for certain (`code.py`).
"""

import html
import re
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from backend.chains.answer.code_blocks import Code
from backend.chains.answer.urls import BALANCED, CHARS, LONGEST, KnownUrls, defanged, trimmed

Between = TypeVar("Between")

_TRIGGER = re.compile(r"!?\[|!\Z|\]|<|\\?:|w{3}\\?\.|w{1,3}\\?\Z|\\|//|/\Z|&|`+|~{3,}|~{1,2}\Z|\$", re.I)
_GAP = r"[ \t]{0,20}+\n?+[ \t]{0,20}+"
_LABEL = r"[^\[\]<>`\\\n]{0,300}"
_DESTINATION = rf"(?:<([^<>\n]*)>|({BALANCED}))"
_DESTINATION_BEGUN = rf"(?:<[^<>\n]*+>?|{BALANCED}(?:\({CHARS}*+)?)"
_QUOTED = r"[^\"'<>\[\]`\n\\:&]{0,200}"
_TITLE = rf"(?:\"{_QUOTED}\"|'{_QUOTED}')"
_LINK = re.compile(rf"!?\[({_LABEL})\]\({_GAP}{_DESTINATION}(?:[ \t]{{1,20}}{_TITLE})?[ \t]{{0,20}}\)")
_LINK_BEGUN = re.compile(
    rf"!?(?:\[{_LABEL}(?:\](?:\({_GAP}{_DESTINATION_BEGUN}"
    rf"(?:[ \t]{{1,20}}(?:[\"']{_QUOTED}[\"']?)?[ \t]{{0,20}})?)?)?)?\Z"
)
# A label that is text and nothing else.
_SPEAKING = re.compile(r"(?![(:])(?:(?!//|www\.|:\S|&).)*", re.I)
_TARGET = re.compile(rf"\]\({_GAP}{_DESTINATION}(?=[\s)])")
_TARGET_BEGUN = re.compile(rf"\](?:\({_GAP}{_DESTINATION_BEGUN})?\Z")
_DEFINITION = re.compile(rf"\]:{_GAP}(?:<([^<>\n]*)>|([^\s<]\S*))(?=\s|\Z)")
_DEFINITION_BEGUN = re.compile(rf"\](?::{_GAP}(?:<[^<>\n]*+>?|[^\s<]\S*+)?)?\Z")
# `[note]: words and more` defines nothing: what follows a URL there is in quotes.
_PROSE = re.compile(r"\]:[ \t]{0,20}[\w,;.'’\-]+[ \t]+[^\s\"'(]")
_PROSE_BEGUN = re.compile(r"\]:[ \t]{0,20}(?:[\w,;.'’\-]+[ \t]*)?\Z")
_URL = re.compile(rf"(\\?:\\?/\\?/|//|www\\?\.|:)({CHARS}*)", re.I)
_URL_BEGUN = re.compile(r"(?:\\?(?::(?:\\?(?:/\\?)?)?)?|/|w{1,3}\\?)\Z", re.I)
_SCHEME = re.compile(r"[A-Za-z]+\Z")
_HOST = re.compile(r"[.:@^`|]|localhost|[^\x00-\x7f\s]", re.I)
_AUTOLINK = re.compile(rf"<([A-Za-z][A-Za-z0-9+.\-]{{1,31}}:{CHARS}*)>")
_EMAIL = re.compile(r"<[\w.+\-]{1,64}@[\w.\-]{1,200}>", re.A)
_QUOTED_BEGUN = r"(?:\"[^\"<>\n]*|'[^'<>\n]*)"
_ATTRIBUTE = r"""[ \t]+([A-Za-z][\w\-]*)(?:[ \t]*=[ \t]*("[^"<>\n]*"|'[^'<>\n]*'|[^\s"'=<>`]+))?"""
_ATTRIBUTES = re.compile(_ATTRIBUTE)
_OPENING = rf"</?[A-Za-z][A-Za-z0-9\-]*(?:{_ATTRIBUTE}){{0,12}}+"
_TAG = re.compile(rf"{_OPENING}[ \t]*/?>")
_ANGLE_BEGUN = re.compile(
    rf"<(?:/?|{_OPENING[1:]}(?:[ \t]+(?:[A-Za-z][\w\-]*)?)?(?:[ \t]*=[ \t]*{_QUOTED_BEGUN}?)?[ \t]*/?"
    rf"|[A-Za-z][A-Za-z0-9+.\-]{{1,31}}:{CHARS}*|[\w.+\-]{{1,64}}(?:@[\w.\-]{{0,200}})?)\Z"
)
_MARKUP = re.compile(r"<[A-Za-z/!?]")
_PLAIN_VALUE = re.compile(r"[\w ,%+\-]*")
_NAME = re.compile(r"[A-Za-z][\w\-]*")
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#x[0-9a-f]{1,8}|[a-z]{2,31});", re.I)
_ENTITY_BEGUN = re.compile(r"&#?[0-9a-z]{0,31}\Z", re.I)
_IN_URLS = re.compile(r"[A-Za-z0-9:/.@\\\t\n]")
_GOES_ON = re.compile(r"\w")
# What can end no waiting for the end of a URL.
_SMOOTH = re.compile(r"[\w.\-]+")

_HARMLESS = frozenset("alt align title width height colspan rowspan start type open class id lang dir".split())
_ACTIVE = frozenset(
    "script style iframe frame frameset object embed applet svg math base meta link form input button video audio "
    "source track picture portal template noscript textarea title xmp plaintext".split()
)
_OPENS_BEFORE = frozenset("([{\"'*_—–-|>")
# Behind a URL: what may be more of it, and what is not, beside ASCII's punctuation.
_GOING_ON = frozenset("%/=&?#+@\\")
_CLOSING = frozenset("。，、；：？！”’»）】」』…–—")
_OPENING_MORE = frozenset("[({\"'")
_SHOWN = 200


class _Step(NamedTuple):
    """What becomes of the next characters of a window: how many, what is emitted instead (None: they are), and what
    follows from it. `counts`: a link was broken; `ends`: a URL passed here, and must not go on with what comes."""

    length: int
    instead: str | None = None
    counts: bool = False
    ends: bool = False


class LinkFilter(Generic[Between]):
    """Breaks unknown links and images in a stream of text. However the text is cut, the outcome is one.

    What stands between pieces of text (marks) keeps its place. What may become a link is held back, at most `LONGEST`
    characters. `broken` counts links and images that were made text.
    """

    def __init__(self, known: KnownUrls) -> None:
        self.broken = 0
        self._known = known
        self._held = ""
        self._between: list[tuple[int, Between]] = []  # with the place in `_held` that they stand behind
        self._within_url = False
        self._code = Code()
        self._last = ""  # the last characters that were emitted
        self._ends = False
        self._opened = False

    def feed(self, piece: str | Between) -> Iterator[str | Between]:
        """What can be emitted now."""
        if not isinstance(piece, str):
            if self._held:
                self._between.append((len(self._held), piece))
            else:
                yield piece
            return
        self._held += piece
        if self._within_url and len(self._held) < LONGEST and _SMOOTH.fullmatch(piece):
            return
        yield from self._scan(closing=False)

    def close(self) -> Iterator[str | Between]:
        """What was held back, at the end of the text."""
        yield from self._scan(closing=True)

    def _scan(self, *, closing: bool) -> Iterator[str | Between]:
        text = self._held
        between = self._between
        self._between, self._within_url = [], False
        position = 0
        while position < len(text):
            if self._code.fenced:
                end = self._code.line_to(text, position, whole=closing)
                if end is None:
                    break
                yield from self._emit(text, position, end, None, between)
                position = end
                continue
            found = _TRIGGER.search(text, position)
            start = found.start() if found is not None else len(text)
            if start > position:
                yield from self._emit(text, position, start, None, between)
                position = start
            if found is None:
                break
            step = self._step(text[start : start + LONGEST], closing, cut=len(text) > start + LONGEST)
            if step is None:
                break
            self.broken += step.counts
            yield from self._emit(text, start, start + step.length, step.instead, between)
            if step.ends:
                self._ends, self._opened = True, False
            position = start + step.length
        self._held = text[position:]
        self._between = [(place - position, each) for place, each in between]

    def _emit(
        self, text: str, start: int, end: int, instead: str | None, between: list[tuple[int, Between]]
    ) -> Iterator[str | Between]:
        """`text[start:end]`, or what stands for it, with what stands between its characters, or behind them."""
        while between and between[0][0] <= end:
            place, each = between.pop(0)
            if instead is None and place > start:
                yield self._passed(text[start:place])
                start = place
            elif instead:
                yield self._passed(instead)
                start, instead = end, ""
            yield each
        rest = text[start:end] if instead is None else instead
        if rest:
            yield self._passed(rest)

    def _passed(self, text: str) -> str:
        if self._ends:
            text = self._ended(text)
        self._code.passed(text)
        self._last = (self._last + text)[-40:]
        return text

    def _ended(self, text: str) -> str:
        """The text behind a URL, with a blank before what some renderers would take for more of it."""
        for at, char in enumerate(text):
            more = char.isalnum() or char in _GOING_ON or (char > "\x7f" and char not in _CLOSING)
            if more or char.isspace() or char == "<":
                self._ends = False
                # In brackets, markup is part of the URL for some.
                return f"{text[:at]} {text[at:]}" if more or (char == "<" and self._opened) else text
            self._opened |= char in _OPENING_MORE
        return text

    def _step(self, window: str, closing: bool, *, cut: bool) -> _Step | None:
        """What becomes of the beginning of the window. None: more must be known."""
        whole = closing or len(window) == LONGEST
        match window[0]:
            case "`" | "~":
                if self._ends and window[0] == "`":  # some take it for more of the URL
                    self._code.doubts("paragraph")
                length = self._code.opens(window, whole=whole)
                return _Step(length) if length is not None else None
            case "[" | "!":
                return self._link(window, whole)
            case "]":
                return self._behind_label(window, whole, cut)
            case "<":
                return self._angle(window, whole)
            case "&":
                return self._entity(window, whole)
            case "$":
                self._code.doubts("forever" if self._last.endswith("$") else "paragraph")
                return _Step(1)
            case "\\" if not _URL.match(window) and (whole or not _URL_BEGUN.match(window)):
                return self._escape(window)
            case _:
                return self._bare(window, whole, cut)

    def _link(self, window: str, whole: bool) -> _Step | None:
        """`[text](url)` and `![alt](url)`, if it is one, whole and simple; for others their second half decides."""
        image = window[0] == "!"
        found = _LINK.match(window)
        if found is None:
            if not whole and _LINK_BEGUN.match(window):
                self._within_url = "](" in window
                return None
            return _Step(2 if window.startswith("![") else 1)
        label, url = found[1], found[2] if found[2] is not None else found[3]
        known = self._known.holds(url)
        if not _SPEAKING.fullmatch(label) and not (known and self._known.holds(label.strip())):
            return _Step(2 if image else 1)
        if known:
            return _Step(found.end(), ends=self._code.doubt != "none")
        shown = self._shown(url)
        note = f"image removed: {shown}" if image and shown else shown or f"{'image' if image else 'link'} removed"
        return _Step(found.end(), self._apart(f"{label} ({note})".lstrip()), counts=True)

    def _behind_label(self, window: str, whole: bool, cut: bool) -> _Step | None:
        """`](url`, `]: url`."""
        match window[1:2]:
            case "(":
                pattern, begun, opening = _TARGET, _TARGET_BEGUN, "] ("
            case ":":
                if _PROSE.match(window):
                    return _Step(2)
                if not whole and _PROSE_BEGUN.match(window):
                    self._within_url = len(window) > 2
                    return None
                pattern, begun, opening = _DEFINITION, _DEFINITION_BEGUN, "] :"
            case "":
                return _Step(1) if whole else None
            case _:
                return _Step(1)
        found = pattern.match(window)
        if not whole and (
            (found is None and begun.match(window)) or (found is not None and found.end() == len(window))
        ):
            self._within_url = True
            return None
        if found is None:
            # A definition of nothing is none, but a target may be any.
            return _Step(2, opening, counts=True) if window[1] == "(" else _Step(2)
        url = found[1] if found[1] is not None else found[2]
        if self._known.holds(url) and not (cut and found.end() == len(window)):
            self._code.doubts("paragraph")  # a title may follow, and hold a backtick
            return _Step(found.end(), ends=True)
        gap = " " if window[1] == ":" else ""
        return _Step(found.end(), f"{opening}{gap}{self._shown(url) or 'link removed'}", counts=True)

    def _angle(self, window: str, whole: bool) -> _Step | None:
        """`<url>`, `<name@host>` and HTML."""
        if (found := _AUTOLINK.match(window)) is not None:
            if self._known.holds(found[1]):
                return _Step(found.end(), ends=True)
            if "//" in found[1] or found[1].casefold().startswith("mailto:"):
                return _Step(found.end(), self._apart(self._shown(found[1])), counts=True)
            return _Step(1, "< ")
        if (found := _EMAIL.match(window)) is not None:
            return _Step(found.end())
        if (found := _TAG.match(window)) is not None:
            return self._tag(found.group())
        if not whole and _ANGLE_BEGUN.match(window):
            self._within_url = True
            return None
        return _Step(1, "< ") if _MARKUP.match(window) else _Step(1)

    def _tag(self, tag: str) -> _Step:
        """A tag of HTML passes with known URLs and what can hold none."""
        opening = _NAME.search(tag)
        assert opening is not None
        name = opening.group().casefold()
        url = ""
        safe = name not in _ACTIVE
        for attribute, value in _ATTRIBUTES.findall(tag, opening.end()):
            value = value.strip("\"'")
            if attribute.casefold() in ("href", "src"):
                url = value
                safe = safe and self._known.holds(value)
            elif value and (attribute.casefold() not in _HARMLESS or not _PLAIN_VALUE.fullmatch(value)):
                safe = False
        if safe:
            self._code.doubts("forever" if name == "pre" else "paragraph")
            return _Step(len(tag), ends=bool(url))
        if name in ("a", "img") and url:
            kind = "image" if name == "img" else "link"
            return _Step(len(tag), self._apart(f"({kind} removed: {self._shown(url)})"), counts=True)
        return _Step(1, "< ", counts=True)

    def _bare(self, window: str, whole: bool, cut: bool) -> _Step | None:
        """`https://…`, `www.…`, `//…`, `mailto:…`."""
        found = _URL.match(window)
        if not whole and (_URL_BEGUN.match(window) or (found is not None and found.end() == len(window))):
            self._within_url = len(window) > 4
            return None
        if found is None:
            return _Step(1)
        opening, rest = found[1], found[2]
        scheme = _SCHEME.search(self._last)
        named = scheme.group().casefold() if scheme is not None else ""
        follows = window[found.end(1) : found.end(1) + 1]
        if (
            not follows.strip()
            or (opening == ":" and not named.endswith(("mailto", "xmpp")))
            or (opening == "//" and not _HOST.search(window, 2, found.end() + 1))
        ):
            return _Step(len(opening))
        body = trimmed(rest)
        url = (named if ":" in opening else "") + opening + body
        if (self._known.holds(url) or (opening == ":" and "?" not in body)) and not (
            cut and found.end() == len(window)
        ):
            return _Step(len(opening) + len(body), ends=True)
        return self._broken(opening, body)

    def _broken(self, opening: str, body: str) -> _Step:
        if opening == "//":
            return _Step(2 + len(body), defanged(opening + body), counts=True)
        plain = opening.replace("\\", "")
        inside = plain if plain[0] == ":" else plain[-1]
        # A bracket must not come before a parenthesis: `](` would begin another.
        gap = "" if _GOES_ON.match(body) else " "
        broken = f"{plain.removesuffix(inside)}[{inside}]{gap}{defanged(body)}"
        return _Step(len(opening) + len(body), broken, counts=True)

    def _entity(self, window: str, whole: bool) -> _Step | None:
        """`&#58;` is a colon, but for a renderer only: nobody needs to write so what a URL is made of."""
        found = _ENTITY.match(window)
        if found is None:
            return None if not whole and _ENTITY_BEGUN.match(window) else _Step(1)
        return _Step(1, "&amp;") if _IN_URLS.fullmatch(html.unescape(found.group())) else _Step(1)

    def _escape(self, window: str) -> _Step:
        r"""`\[` opens no link, an escaped backtick no code; a formula may begin here."""
        if window[1:2] in ("[", "("):
            self._code.doubts("paragraph")
        return _Step(2 if window[1:2] in ("\\", "`", "[", "$", "(") else 1)

    def _shown(self, url: str) -> str:
        """The URL to be read; nothing when it is none in plain characters."""
        if not re.fullmatch(f"{CHARS}+", url):
            return ""
        return defanged(url if len(url) <= _SHOWN else f"{trimmed(url[:_SHOWN])}…")

    def _apart(self, text: str) -> str:
        """Text that replaces markup, kept from what stands before it: together they might be another link."""
        before = self._last[-1:]
        return text if not before.strip() or before in _OPENS_BEFORE else f" {text}"
