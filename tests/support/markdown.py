"""The URLs that a browser would load or link in a Markdown text, rendered in several ways."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser, LexborNode

_PLAIN = MarkdownIt("commonmark", {"html": True})
_GFM = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(["linkify", "table", "strikethrough"])
_NO_HTML = MarkdownIt("commonmark", {"html": False, "linkify": True}).enable(["linkify", "table", "strikethrough"])
for _renderer in (_GFM, _NO_HTML):
    assert _renderer.linkify is not None
    # Only markdown-it makes links of host names in plain text (`main.py` is one), so this is switched off.
    _renderer.linkify.set({"fuzzy_link": False, "fuzzy_email": False})
RENDERERS = {"commonmark": _PLAIN, "gfm": _GFM, "without html": _NO_HTML}
# GitHub's rule for plain text: goldmark, cmark-gfm and remark-gfm make links of these.
_BARE = re.compile(
    r"(?:https?|ftp)://[^\s<]*[^\W_][^\s<]*|(?<![A-Za-z0-9])www\.[^\W_][^\s<]*|(?:mailto|xmpp):[\w.+-]+@[^\s<]+", re.I
)
_ALIGNED = re.compile(r"text-align:\w+")  # a table's own style
_ACTIVE = {"script", "style", "iframe", "object", "embed", "base", "meta", "link", "form", "svg", "math", "video"}


def urls(text: str) -> set[str]:
    """Every URL that a renderer links or loads. Entries with `active:`, `style:` or `on...:` could load anything."""
    return {unquote(url) for renderer in RENDERERS.values() for url in _urls(renderer.render(text))}


def _urls(rendered: str) -> Iterator[str]:
    # The parser joins the text on both sides of a stray tag, but clients look for links in each of them.
    spaced = rendered.replace("<", " <")
    root = LexborHTMLParser(f"<body>{spaced}</body>").body
    assert root is not None
    for node in root.traverse(include_text=True):
        if node.is_text_node:
            if not _inside(node, {"a", "code", "pre", "script", "style", "textarea"}):
                yield from (re.sub(r"[\W_]+\Z", "", url) for url in _BARE.findall(node.text_content or ""))
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
    """The URLs that clients would link or load, without known ones, those of `host`, and plain mail addresses."""
    same = {_plain(url) for url in known}
    fine = re.compile(rf"mailto:[^?]*|(?:https?:)?//{re.escape(host)}(?:[/?#].*|\W*)" if host else "mailto:[^?]*", re.I)
    return {url for url in urls(text) if _plain(url) not in same and not fine.fullmatch(url)}


def _plain(url: str) -> str:
    return re.sub(r"^https?://(?=www\.)|^https?:(?=//)|[\W_]+\Z", "", url)
