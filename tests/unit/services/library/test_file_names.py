"""File names as they are shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.services.library.file_names import MAX_NAME, display_name


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("report.pdf", "report.pdf"),
        ("../../x", "x"),
        ("C:\\Users\\anna\\cv.docx", "cv.docx"),
        ("/etc/passwd", "passwd"),
        ("a/", "unnamed"),
        ("", "unnamed"),
        (".", "unnamed"),
        ("..", "unnamed"),
        (". . .", "unnamed"),
        ("   ", "unnamed"),
        ("\x00", "unnamed"),
        ("\u202e\u200b", "unnamed"),
        (".env", ".env"),
        ("a\r\nSet-Cookie: x=1", "aSet-Cookie: x=1"),
        ("a\tb.txt", "ab.txt"),
        ("a   b.txt", "a b.txt"),
        ("a\u2028b.txt", "a b.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("\ud800x.txt", "x.txt"),
        ("名前 🚢.txt", "名前 🚢.txt"),
        ("x" * 255, "x" * 255),
        ("x" * 256, "x" * 254 + "…"),
        ("x" * 5000 + ".pdf", "x" * 250 + "….pdf"),
        ("x." + "y" * 5000, "x." + "y" * 252 + "…"),
    ],
)
def test_a_name_is_shown_as(given_name: str, shown: str) -> None:
    assert display_name(given_name) == shown


@given(st.text(max_size=400))
def test_any_name_is_one_visible_line_of_at_most_255_characters(name: str) -> None:
    shown = display_name(name)
    assert 1 <= len(shown) <= MAX_NAME
    assert shown == shown.strip() and len(shown.splitlines()) == 1
    assert "/" not in shown and "\\" not in shown
    assert set(shown) != {"."}
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown.encode()


@given(st.text(max_size=400))
def test_a_name_that_is_shown_stays_as_it_is(name: str) -> None:
    assert display_name(display_name(name)) == display_name(name)
