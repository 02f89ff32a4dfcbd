"""The snippets of the documents, which the tests run as they stand there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = "http://localhost:8001"
"""The server's address in the snippets."""


def snippet(page: str, section: str, language: str, index: int = 0) -> str:
    """A block of that language under a heading (`## section`) of a page; the first one unless told otherwise."""
    text = (ROOT / page).read_text(encoding="utf-8")
    under = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert under is not None, f"{page} has no section {section}"
    return re.findall(rf"^```{language}\n(.*?)^```$", under[1], re.M | re.S)[index]


def pointed_at(code: str, base: str) -> str:
    """A snippet whose server is the one at `base`."""
    assert SHOWN.removeprefix("http://") in code
    return code.replace(SHOWN, base).replace(SHOWN.removeprefix("http://"), base.removeprefix("http://"))
