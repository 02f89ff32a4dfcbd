"""The files of the vector index: whether they can be opened at all.

Chroma's graph reads its files without checking their sizes: a truncated file kills the process instead of raising an
error. So the sizes are compared before the index is opened. For damage of another kind there is a count of the starts
that died while they loaded the vectors.
"""

import shutil
import struct
from contextlib import suppress
from pathlib import Path

_HEADER = struct.Struct("<i6qiI3qdq")
"""The header of a graph: version, offset, places, elements, bytes of an element, and numbers that don't matter here."""
_SIZE = struct.Struct("<I")
_ROWS = 4096
_LEAST_BYTES = 500_000
_LOADING = "loading"
_MAX_DEATHS = 2
"""Starts in a row that died while they loaded the vectors; then the vectors are taken for damaged."""


def find_damage(folder: Path) -> str | None:
    """What is wrong with the files of the index, in words; None if nothing is known to be wrong."""
    if _deaths(folder) >= _MAX_DEATHS:
        return f"the server died {_MAX_DEATHS} times in a row while it loaded the vectors"
    for header in folder.glob("*/header.bin"):
        try:
            problem = _find_segment_damage(header.parent)
        except (OSError, ValueError, struct.error) as error:
            problem = f"{header.parent.name} can't be read ({type(error).__name__})"
        if problem is not None:
            return problem
    return None


def _find_segment_damage(segment: Path) -> str | None:
    header = segment / "header.bin"
    _, _, _, elements, element_bytes, _, vector_at, *_ = _HEADER.unpack(header.read_bytes())
    for name, size in (("data_level0.bin", elements * element_bytes), ("length.bin", elements * 4)):
        if not 0 <= size <= (segment / name).stat().st_size:
            return f"{segment.name}/{name} is shorter than its header says"
    # The links of each element: their size, then themselves.
    links, at = (segment / "link_lists.bin").read_bytes(), 0
    for _ in range(elements):
        (size,) = _SIZE.unpack_from(links, at)
        at += _SIZE.size + size
    if at > len(links):
        return f"{segment.name}/link_lists.bin is shorter than its header says"
    if not _are_elements_whole(segment / "data_level0.bin", elements, element_bytes, vector_at):
        return f"{segment.name}/data_level0.bin has elements that can't be right"
    return None


def _are_elements_whole(file: Path, elements: int, element_bytes: int, vector_at: int) -> bool:
    """Whether every element links to elements that exist, and has a vector. An element is the number of its links, the
    links, its vector, and its label (8 bytes)."""
    import numpy as np

    places = np.arange(vector_at // 4 - 1)
    stored = np.memmap(file, np.uint8, "r")[: elements * element_bytes].reshape(elements, element_bytes)
    for first in range(0, elements, _ROWS):
        rows = np.ascontiguousarray(stored[first : first + _ROWS])
        numbers = rows[:, :vector_at].copy().view(np.dtype("<u4"))
        # The upper half of the number has flags.
        counts, links = numbers[:, :1] & 0xFFFF, numbers[:, 1:]
        if (counts > len(places)).any() or ((links >= elements) & (places < counts)).any():
            return False
        if not rows[:, vector_at:-8].any(axis=1).all():
            return False
    return True


def begin_loading(folder: Path) -> None:
    """Note that the vectors are about to be loaded, which may kill the process."""
    deaths = _deaths(folder)
    with suppress(OSError):
        (folder / _LOADING).write_text(str(deaths + 1), encoding="ascii")


def end_loading(folder: Path) -> None:
    """Note that the vectors were loaded."""
    with suppress(OSError):
        (folder / _LOADING).unlink(missing_ok=True)


def _deaths(folder: Path) -> int:
    try:
        return int((folder / _LOADING).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def remove_files(folder: Path) -> None:
    """Remove everything under the folder, and make it again."""
    # Renamed first: a half-removed index must not be opened after a crash.
    trash = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(trash, ignore_errors=True)
    with suppress(OSError):
        folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def is_disk_full(folder: Path) -> bool:
    """Whether the disk of the folder has no room for Chroma's files."""
    try:
        return shutil.disk_usage(folder.parent).free < _LEAST_BYTES
    except OSError:
        return False
