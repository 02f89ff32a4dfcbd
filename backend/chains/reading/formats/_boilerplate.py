"""Finds menus, footers and the like in a web page: by their names, and by how much of their text is links."""

import re
from typing import Any

from backend.chains.reading.formats._html import BLOCKS, walk

# Words in the names (class, id) of elements.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NAMES = frozenset(
    """
    cookie cookies consent gdpr sidebar breadcrumb breadcrumbs newsletter advert adverts advertisement advertising ads
    sponsored popup footer comments disqus masthead paywall
    """.split()
)
# These may also be names of content. They are boilerplate if much of their text is links.
_LINKED_NAMES = frozenset(
    """
    nav navbar navigation menu menus submenu share sharing social related recommended recommendations popular trending
    promo toolbar pagination pager header tags tools meta more most widget follow
    """.split()
)
_LINKED_SHARE = 0.4
# Lists of links, whatever their names are. Long links are titles: they may be content if they are inside of an element
# that the page marks as its content, and hardly ever elsewhere.
_MANY_LINKS = 4
_LIST_SHARE = 0.75
_SHORT_LINK = 35
_LONG_LINK = 70
# An element with a larger share of the page's text is not boilerplate; and a page has at least this share of content.
_MAX_SHARE = 0.5
_MIN_CONTENT_SHARE = 0.3


def find_boilerplate(root: Any) -> set[int]:
    """The ids (`mem_id`) of the elements below `root` that are not the content."""
    candidates, total = _measure(root)
    longest = _LONG_LINK if root.tag == "body" else _SHORT_LINK
    around: set[int] = set()
    dropped = 0
    until = -1
    # In the order of the page; outer elements before the elements inside of them.
    for begin, node, length, linked, links in sorted(candidates, key=lambda candidate: (candidate[0], -candidate[2])):
        if begin >= until and length <= _MAX_SHARE * total and _is_around(node, length, linked, links, longest):
            around.add(node.mem_id)
            dropped += length
            until = begin + length
    return around if total - dropped >= _MIN_CONTENT_SHARE * total else set()


def _measure(root: Any) -> tuple[list[tuple[int, Any, int, int, int]], int]:
    """The blocks with text, and the length of all text. White space doesn't count.

    A block is (offset of its text, node, length, length of text in links, number of links).
    """
    candidates: list[tuple[int, Any, int, int, int]] = []
    inside: list[tuple[int, int, int]] = []
    at = linked = links = depth = 0
    for node, entering in walk(root):
        tag = node.tag
        if tag == "-text":
            length = len("".join((node.text_content or "").split())) if entering else 0
            at += length
            linked += length if depth else 0
        elif tag == "a":
            depth += 1 if entering else -1
            links += entering
        elif tag in BLOCKS and entering:
            inside.append((at, linked, links))
        elif tag in BLOCKS:
            begin, linked_before, links_before = inside.pop()
            if at > begin:
                candidates.append((begin, node, at - begin, linked - linked_before, links - links_before))
    return candidates, at


def _is_around(node: Any, length: int, linked: int, links: int, longest: int) -> bool:
    if node.tag in ("article", "main", "body"):
        return False
    attributes = node.attributes
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"[:500]
    words = {word.lower() for word in _WORD.findall(names)}
    if words & _NAMES or (words & _LINKED_NAMES and linked >= _LINKED_SHARE * length):
        return True
    return links >= _MANY_LINKS and linked >= _LIST_SHARE * length and linked <= longest * links
