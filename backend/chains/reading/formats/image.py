"""Images of text: scans and photographs, read by OCR if the server has Tesseract."""

from pathlib import Path

from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._ocr import HINT, is_available, read_image
from backend.chains.reading.parsed import ParsedDocument, TextBuilder
from backend.errors import DocumentUnreadable

_MARKS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}


def _media_type(head: bytes) -> str | None:
    return next((media_type for mark, media_type in _MARKS.items() if head.startswith(mark)), None)


def _sniff(head: bytes, path: Path, name: str) -> float:
    return 1.0 if _media_type(head) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    image = path.read_bytes()
    media_type = _media_type(image)
    if media_type is None:
        raise DocumentUnreadable("document_corrupt", "This picture is damaged. Export it anew as PNG or JPEG.")
    if not is_available():
        raise DocumentUnreadable("document_scanned", f"This is a picture. {HINT}")
    out = TextBuilder()
    for paragraph in read_image(image):
        out.add(paragraph)
    if not out.length:
        raise DocumentUnreadable("document_empty", "No text was found in this picture.")
    return out.build(media_type, None)


PLUGIN = Format("image", "pictures", "image/png", (".png", ".jpg", ".jpeg", ".tif", ".tiff"), _sniff, _parse)
