"""Reads the text in images with Tesseract, if it is installed on the server."""

import os
import shutil
import subprocess
from functools import cache

HINT = (
    "Run OCR on it first, or have the server do it: install Tesseract there (`apt install tesseract-ocr`) and upload "
    "the file once more."
)
# Seconds for one image. A slower one is given up, so that one bad page doesn't cost the others.
_TIMEOUT = 60
# If more languages are installed, it is the whole catalogue, not a choice: each language makes reading slower.
_MAX_LANGUAGES = 4


def is_available() -> bool:
    """Whether Tesseract is installed."""
    return shutil.which("tesseract") is not None


def read_image(image: bytes) -> list[str]:
    """The paragraphs in an image (PNG, JPEG, TIFF or PNM), each as one line.

    An empty list if there is no text, or if Tesseract fails or takes longer than a minute.
    """
    try:
        text = _run("stdin", "stdout", "-l", _languages(), image=image)
    except (OSError, subprocess.SubprocessError):
        return []
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


@cache
def _languages() -> str:
    """The installed languages as an argument of Tesseract."""
    names = [line.strip() for line in _run("--list-langs").splitlines()[1:]]
    chosen = [name for name in names if name and name != "osd" and "/" not in name]
    return "+".join(chosen) if 0 < len(chosen) <= _MAX_LANGUAGES else "eng"


def _run(*arguments: str, image: bytes = b"") -> str:
    program = shutil.which("tesseract") or "tesseract"
    process = subprocess.run(  # noqa: S603
        [program, *arguments],
        input=image,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT,
        check=True,
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},
    )
    return process.stdout.decode("utf-8", "replace").replace("\f", "\n\n")
