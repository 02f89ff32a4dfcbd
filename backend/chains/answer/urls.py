"""URLs in text: which of them somebody wrote, and how to write one so that no Markdown renderer makes a link of it."""

import re
from collections.abc import Iterable

LONGEST = 2_000
"""Longest URL that is compared with others, in characters."""

_INNER = r"[\w\-.~:/?#@!$&*+,;=%']"
CHARS = r"[\w\-.~:/?#@!$&*+,;=%'()]"
"""A character of a URL in running text; brackets, quotes, backslashes and backticks end one."""
BALANCED = rf"(?:{_INNER}|\({_INNER}*+\))*+"
"""A URL where a parenthesis that it didn't open ends it."""

_WRITTEN = re.compile(rf"(?:(?:https?|ftp)://|www\.|mailto:){CHARS}+", re.I)
_BALANCED = re.compile(BALANCED)
_ASCII = re.compile(r"[\x00-\x7f]*")
_PARTS = re.compile(rf"(?:(https?|ftp)://|(mailto:)|//|(?=www\.))([\w\-.~:@!$&*+,;=%'()]*)({CHARS}*)", re.I)
_HOST = re.compile(r"//([a-z0-9.\-]+)(?::(\d{1,5}))?(?:[/?#].*)?")
_ENDS = ".,;:!?)(*_~'/"
_SCHEME = re.compile(r"://(?=\w)")
_COLON = re.compile(r"(?<!\[):(?=[\w/])")
_SLASH = re.compile(r"(?<!:)/(?=/)")
_ENTITY = re.compile(r"&(?=#?\w+;)")
# Where some renderers end a URL, and begin another: entities are decoded before they look.
_TWO = re.compile(r"&#?\w+;|[^\w:/](?://|[A-Za-z]+:)|\Wwww\.", re.I)
_DOT = re.compile(r"(?<=\w)\.(?=\w)")


def trimmed(url: str) -> str:
    """Without the punctuation that ends a sentence rather than a URL."""
    return url.rstrip(_ENDS)


def defanged(url: str) -> str:
    """`https[://]example[.]com`: to be read and copied, never linked. `url` must hold nothing but `CHARS`."""
    text = _COLON.sub("[:]", _SCHEME.sub("[://]", _ENTITY.sub("&amp;", url)))
    return _DOT.sub("[.]", _SLASH.sub("/ ", text))


class KnownUrls:
    """The URLs that stand in some texts, whole, and all those of some hosts, as (host, port)."""

    def __init__(self, texts: Iterable[str], hosts: frozenset[tuple[str, int]] = frozenset()) -> None:
        self._hosts = hosts
        self._urls: set[str] = set()
        for text in texts:
            for found in _WRITTEN.findall(text):
                # Whether a parenthesis or a letter of another script belongs to it can't be told: both are right.
                for form in (found, _head(_BALANCED, found), _head(_ASCII, found)):
                    if (url := _canonical(form)) is not None:
                        self._urls.add(url)

    def holds(self, url: str) -> bool:
        """Whether that very URL is known: one with another query, path, user or encoding is another URL.

        http and https, the case of the host, and punctuation at the end make no difference.
        """
        canonical = _canonical(url) if len(url) <= LONGEST else None
        if canonical is None:
            return False
        if canonical in self._urls:
            return True
        host = _HOST.fullmatch(canonical) if not _TWO.search(canonical, 2) else None
        return host is not None and (host[1], int(host[2] or 443)) in self._hosts


def _head(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return found.group() if found is not None else ""


def _canonical(url: str) -> str | None:
    """The URL in the form that is compared; None for what is none, or of another scheme."""
    parts = _PARTS.fullmatch(trimmed(url))
    if parts is None or not parts[3]:
        return None
    scheme = "ftp://" if (parts[1] or "").casefold() == "ftp" else "mailto:" if parts[2] else "//"
    where = parts[3].lower() if parts[3].isascii() else parts[3]
    return f"{scheme}{where}{parts[4]}"
