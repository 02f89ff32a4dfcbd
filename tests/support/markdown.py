"""What clients make of a text: Markdown rendered in several ways, and every URL that a browser would load or link."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser, LexborNode

_PLAIN = MarkdownIt("commonmark", {"html": True})
_GFM = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(["linkify", "table", "strikethrough"])
_NO_HTML = MarkdownIt("commonmark", {"html": False, "linkify": True}).enable(["linkify", "table", "strikethrough"])
for _each in (_GFM, _NO_HTML):
    assert _each.linkify is not None
    # Host names in plain text (`main.py` is one) are links for markdown-it alone.
    _each.linkify.set({"fuzzy_link": False, "fuzzy_email": False})
RENDERERS = {"commonmark": _PLAIN, "gfm": _GFM, "without html": _NO_HTML}
# GitHub's rule, on the text as it is shown: goldmark, cmark-gfm and remark-gfm make links of these.
_BARE = re.compile(
    r"(?:https?|ftp)://[^\s<]*[^\W_][^\s<]*|(?<![A-Za-z0-9])www\.[^\W_][^\s<]*|(?:mailto|xmpp):[\w.+-]+@[^\s<]+", re.I
)
_ALIGNED = re.compile(r"text-align:\w+")  # a table's own style
_ACTIVE = {"script", "style", "iframe", "object", "embed", "base", "meta", "link", "form", "svg", "math", "video"}


def urls(text: str) -> set[str]:
    """Every URL that some renderer links or loads; `active:` and `style:` tell of what could load anything."""
    return {unquote(url) for renderer in RENDERERS.values() for url in _urls(renderer.render(text))}


def _urls(rendered: str) -> Iterator[str]:
    # Text on both sides of a stray tag is one text for the parser, but not for those that look for links in it.
    spaced = rendered.replace("<", " <")
    root = LexborHTMLParser(f"<body>{spaced}</body>").body
    assert root is not None
    for node in root.traverse(include_text=True):
        if node.is_text_node:
            if not _inside(node, {"a", "code", "pre", "script", "style", "textarea"}):
                yield from (re.sub(r"[\W_]+\Z", "", found) for found in _BARE.findall(node.text_content or ""))
            continue
        if node.tag in _ACTIVE:
            yield f"active:{node.tag}"
        for name, value in node.attributes.items():
            if name in ("href", "src", "srcset", "action", "data", "poster", "background", "formaction", "ping"):
                yield value or ""
            elif name.startswith("on") or (name == "style" and not _ALIGNED.fullmatch(value or "")):
                yield f"{name}:{value}"


def _inside(node: LexborNode, tags: set[str]) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.tag in tags:
            return True
        parent = parent.parent
    return False


def leaks(text: str, known: set[str], host: str = "") -> set[str]:
    """The URLs that clients would link or load and that are neither known nor of that host. A bare mail address, with
    nothing to say, is none."""
    same = {_plain(url) for url in known}
    fine = re.compile(rf"mailto:[^?]*|(?:https?:)?//{re.escape(host)}(?:[/?#].*|\W*)" if host else "mailto:[^?]*", re.I)
    return {url for url in urls(text) if _plain(url) not in same and not fine.fullmatch(url)}


def _plain(url: str) -> str:
    return re.sub(r"^https?://(?=www\.)|^https?:(?=//)|[\W_]+\Z", "", url)
