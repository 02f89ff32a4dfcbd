"""What stands around the content of a web page: told by what its author calls it, and by how much of it is links."""

import re
from typing import Any

from backend.chains.reading.formats._html import BLOCKS, walk

# In names (class, id) of elements.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NAMES = frozenset(
    """
    cookie cookies consent gdpr sidebar breadcrumb breadcrumbs newsletter advert adverts advertisement advertising ads
    sponsored popup footer comments disqus masthead paywall
    """.split()
)
# These may also be content; around it they are mostly links.
_LINKED_NAMES = frozenset(
    """
    nav navbar navigation menu menus submenu share sharing social related recommended recommendations popular trending
    promo toolbar pagination pager header tags tools meta more most widget follow
    """.split()
)
_LINKED_SHARE = 0.4
# Lists of links, whatever they are called. Longer links are titles, which may be content where the page says that its
# content begins, and elsewhere hardly.
_MANY_LINKS = 4
_LIST_SHARE = 0.75
_SHORT_LINK = 35
_LONG_LINK = 70
# More than so much of a page is no boilerplate, and a page has at least so much content.
_MOST = 0.5
_LEAST_KEPT = 0.3


def boilerplate(root: Any) -> set[int]:
    """The ids (`mem_id`) of the elements below `root` that are not the content."""
    candidates, total = _measured(root)
    longest = _LONG_LINK if root.tag == "body" else _SHORT_LINK
    found: set[int] = set()
    dropped = 0
    until = -1
    # In the order of the page, the outer ones before what is inside of them.
    for begin, node, length, linked, links in sorted(candidates, key=lambda candidate: (candidate[0], -candidate[2])):
        if begin >= until and length <= _MOST * total and _is_around(node, length, linked, links, longest):
            found.add(node.mem_id)
            dropped += length
            until = begin + length
    return found if total - dropped >= _LEAST_KEPT * total else set()


def _measured(root: Any) -> tuple[list[tuple[int, Any, int, int, int]], int]:
    """The blocks that hold text: (where it begins, node, its length, how much of it is in links, number of links); and
    how much text there is. White space does not count.
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
