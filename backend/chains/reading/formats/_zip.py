"""Formats that are zip archives: how they are detected, and how an unsafe archive is unpacked."""

import importlib
import struct
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.errors import DocumentUnreadable

MAX_UNPACKED = 200 * 1024 * 1024
MAX_ENTRIES = 10_000
# Deflate can reach 1,000; the XML of real documents stays below 30.
MAX_RATIO = 200
_RATIO_MATTERS_FROM = 10 * 1024 * 1024
_MAX_NAME = 200

_ZIP = b"PK\x03\x04"
_TAIL_BYTES = 65_536
_END = struct.Struct("<4s4H2LH")  # end of central directory: ..., entries, size of the directory, ...


def contains_part(head: bytes, path: Path, part: bytes) -> bool:
    """Whether the file is an archive that contains `part`, judged by its beginning and its end."""
    return head.startswith(_ZIP) and (part in head or part in read_tail(path))


def read_tail(path: Path) -> bytes:
    """The last bytes of a file; archives have their table of contents there."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()


def check_archive(path: Path) -> None:
    """Refuse a zip bomb by its table of contents, before anything is unpacked.

    The table may be wrong: then zipfile reads only as much of an entry as the table says, and finds a wrong checksum.
    Raises DocumentUnreadable, zipfile.BadZipFile.
    """
    end = read_tail(path)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < _END.size:
        raise zipfile.BadZipFile
    # The table itself is checked first, because zipfile reads all of it.
    if _END.unpack_from(end, at)[5] > MAX_ENTRIES * _MAX_NAME:
        raise _too_large()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED:
        raise _too_large()
    if unpacked > _RATIO_MATTERS_FROM and unpacked > MAX_RATIO * path.stat().st_size:
        raise _too_large()


@contextmanager
def report_damage(message: str) -> Generator[None]:
    """In this context, any error means that the file is damaged: it becomes DocumentUnreadable with `message`.

    zipfile, lxml and the libraries that use them raise a dozen different errors for a damaged file.
    """
    try:
        yield
    except (DocumentUnreadable, MemoryError):
        raise
    except Exception as error:
        raise DocumentUnreadable("document_corrupt", message) from error


def _too_large() -> DocumentUnreadable:
    return DocumentUnreadable(
        "document_too_large",
        f"Unpacked, this document is larger than {MAX_UNPACKED // 2**20} MB or has too many parts. "
        "Split it, or remove its pictures.",
    )


class Archive:
    """A checked archive. Close it, or use it as a context manager.

    Raises DocumentUnreadable, zipfile.BadZipFile; `read` and `xml` also KeyError and what zlib and lxml raise.
    """

    def __init__(self, path: Path) -> None:
        check_archive(path)
        self._zip = zipfile.ZipFile(path)
        self.names = frozenset(self._zip.namelist())
        self._left = MAX_UNPACKED

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The content of an entry. The total that is read is limited, even if the same entry is read again."""
        content = self._zip.read(name)
        self._left -= len(content)
        if self._left < 0:
            raise _too_large()
        return content

    def xml(self, name: str) -> Any:
        """An entry as an lxml element. Entities are not resolved, nothing is fetched, and lxml limits the depth."""
        etree: Any = importlib.import_module("lxml.etree")  # has no types
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
        return etree.fromstring(self.read(name), parser)
