"""URLs in text: which URLs are known, and how to write a URL so that no Markdown renderer makes a link of it."""

import re
from collections.abc import Iterable

LONGEST = 2_000
"""Longest URL that is compared with others, in characters."""

_INNER = r"[\w\-.~:/?#@!$&*+,;=%']"
CHARS = r"[\w\-.~:/?#@!$&*+,;=%'()]"
"""A character of a URL in running text; brackets, quotes, backslashes and backticks end one."""
BALANCED = rf"(?:{_INNER}|\({_INNER}*+\))*+"
"""A URL that ends before a closing parenthesis without an opening one."""

_URL_IN_TEXT = re.compile(rf"(?:(?:https?|ftp)://|www\.|mailto:){CHARS}+", re.I)
_BALANCED = re.compile(BALANCED)
_ASCII = re.compile(r"[\x00-\x7f]*")
_PARTS = re.compile(rf"(?:(https?|ftp)://|(mailto:)|//|(?=www\.))([\w\-.~:@!$&*+,;=%'()]*)({CHARS}*)", re.I)
_HOST = re.compile(r"//([a-z0-9.\-]+)(?::(\d{1,5}))?(?:[/?#].*)?")
_END_PUNCTUATION = ".,;:!?)(*_~'/"
_SCHEME = re.compile(r"://(?=\w)")
_COLON = re.compile(r"(?<!\[):(?=[\w/])")
_SLASH = re.compile(r"(?<!:)/(?=/)")
_ENTITY = re.compile(r"&(?=#?\w+;)")
# Some renderers end a URL here and begin another one, because they decode entities first.
_SECOND_URL = re.compile(r"&#?\w+;|[^\w:/](?://|[A-Za-z]+:)|\Wwww\.", re.I)
_DOT = re.compile(r"(?<=\w)\.(?=\w)")


def trim_punctuation(url: str) -> str:
    """The URL without punctuation at its end, which belongs to the sentence."""
    return url.rstrip(_END_PUNCTUATION)


def defang(url: str) -> str:
    """The URL like `https[://]example[.]com`, which people can read and no renderer makes a link of. `url` may contain
    only `CHARS`."""
    text = _COLON.sub("[:]", _SCHEME.sub("[://]", _ENTITY.sub("&amp;", url)))
    return _DOT.sub("[.]", _SLASH.sub("/ ", text))


class KnownUrls:
    """The URLs in `texts`, and all URLs of `hosts` (host, port)."""

    def __init__(self, texts: Iterable[str], hosts: frozenset[tuple[str, int]] = frozenset()) -> None:
        self._hosts = hosts
        self._urls: set[str] = set()
        for text in texts:
            for url in _URL_IN_TEXT.findall(text):
                # A parenthesis or a letter of another script may belong to the URL or not: all forms are known.
                for form in (url, _head(_BALANCED, url), _head(_ASCII, url)):
                    if (canonical := _canonical(form)) is not None:
                        self._urls.add(canonical)

    def contains(self, url: str) -> bool:
        """Whether exactly this URL is known. With another query, path, user or encoding it is another URL.

        http and https, the case of the host, and punctuation at the end make no difference.
        """
        canonical = _canonical(url) if len(url) <= LONGEST else None
        if canonical is None:
            return False
        if canonical in self._urls:
            return True
        host = _HOST.fullmatch(canonical) if not _SECOND_URL.search(canonical, 2) else None
        return host is not None and (host[1], int(host[2] or 443)) in self._hosts


def _head(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return match.group() if match is not None else ""


def _canonical(url: str) -> str | None:
    """The URL in the form that is compared; None if it is not a URL, or has another scheme."""
    parts = _PARTS.fullmatch(trim_punctuation(url))
    if parts is None or not parts[3]:
        return None
    scheme = "ftp://" if (parts[1] or "").casefold() == "ftp" else "mailto:" if parts[2] else "//"
    host = parts[3].lower() if parts[3].isascii() else parts[3]
    return f"{scheme}{host}{parts[4]}"
