"""Pictures of text to text, by Tesseract where it is installed beside the server."""

import os
import shutil
import subprocess
from functools import cache

HINT = (
    "Run OCR on it first, or have the server do it: install Tesseract there (`apt install tesseract-ocr`) and upload "
    "the file once more."
)
# For one picture; what takes longer is given up, so that one bad page does not cost the others.
_TIMEOUT = 60
# More languages than somebody chose to install are the whole catalogue: each one makes reading slower.
_MAX_LANGUAGES = 4


def available() -> bool:
    """Whether there is a Tesseract to call."""
    return shutil.which("tesseract") is not None


def read_picture(picture: bytes) -> list[str]:
    """The paragraphs in a picture (PNG, JPEG, TIFF or PNM), each in one line; none when there are none, or when
    Tesseract fails or takes longer than a minute.
    """
    try:
        text = _run("stdin", "stdout", "-l", _languages(), picture=picture)
    except (OSError, subprocess.SubprocessError):
        return []
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


@cache
def _languages() -> str:
    """All that are installed, as Tesseract wants to be told."""
    names = [line.strip() for line in _run("--list-langs").splitlines()[1:]]
    chosen = [name for name in names if name and name != "osd" and "/" not in name]
    return "+".join(chosen) if 0 < len(chosen) <= _MAX_LANGUAGES else "eng"


def _run(*arguments: str, picture: bytes = b"") -> str:
    program = shutil.which("tesseract") or "tesseract"
    done = subprocess.run(  # noqa: S603
        [program, *arguments],
        input=picture,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT,
        check=True,
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},
    )
    return done.stdout.decode("utf-8", "replace").replace("\f", "\n\n")
