"""The names of documents, as they are stored and displayed."""

import unicodedata

MAX_NAME = 255
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_LONGEST_ENDING = 16


def display_name(name: str) -> str:
    """A file name that is safe to display: the last part of the path, without characters that are invisible or change
    the direction of writing. At most MAX_NAME characters; a longer name keeps its ending. "unnamed" if nothing is left.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    visible = "".join(c for c in last if unicodedata.category(c) not in _INVISIBLE)
    is_dots = set(visible) <= {".", " "}
    visible = " ".join(visible.split())
    if is_dots:
        visible = visible.strip(". ")
    if len(visible) > MAX_NAME:
        stem, dot, ending = visible.rpartition(".")
        ending = f"{dot}{ending}" if dot and len(ending) <= _LONGEST_ENDING else ""
        visible = (stem if ending else visible)[: MAX_NAME - len(ending) - 1] + "…" + ending
    return visible or "unnamed"
