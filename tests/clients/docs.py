"""The snippets of the documents, which the tests run as they stand there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = "http://localhost:8001"
"""The server's address in the snippets."""


def snippet(page: str, section: str, language: str) -> str:
    """The first block of that language under a heading (`## section`) of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    under = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert under is not None, f"{page} has no section {section}"
    block = re.search(rf"^```{language}\n(.*?)^```$", under[1], re.M | re.S)
    assert block is not None, f"{page}, {section}: no {language}"
    return block[1]


def pointed_at(code: str, base: str) -> str:
    """A snippet whose server is the one at `base`."""
    assert SHOWN.removeprefix("http://") in code
    return code.replace(SHOWN, base).replace(SHOWN.removeprefix("http://"), base.removeprefix("http://"))
