"""What a JSON answer states, and where."""

import pytest

from backend.chains.text.json_claims import json_claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ('{"note": "The notice is 45 days."}', [("The notice is 45 days.", "The notice is 45 days.")]),
        (
            '{"note": "The notice is 45 days. It costs 40 crowns."}',
            [("The notice is 45 days.", "The notice is 45 days."), ("It costs 40 crowns.", "It costs 40 crowns.")],
        ),
        (r'{"note": "The \"notice\" is 45 days."}', [(r"The \"notice\" is 45 days.", 'The "notice" is 45 days.')]),
        ('{"noticePeriod": "45 days"}', [("45 days", "notice Period 45 days")]),
        ('{"notice_period_days": 45}', [("45", "notice period days 45")]),
        ('{"days": 45, "ids": [1, 2], "ok": true, "none": null}', []),
        ('{"list": ["Invoices are due in 30 days", "x"]}', [("Invoices are due in 30 days",) * 2]),
        ('{"cut": "Invoices are', []),
        ("", []),
    ],
)
def test_values_are_claims(text: str, claims: list[tuple[str, str]]) -> None:
    found = json_claims(text)
    assert [claim for _, _, claim in found] == [stated for _, stated in claims]
    assert [text[start:end] for start, end, _ in found] == [shown for shown, _ in claims]
