"""What a caller may ask of a model's writing: a schema that can be sent, stored and shown."""

from typing import Any

import pytest
from pydantic import ValidationError

from backend.chains.models.parameters import Writing


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def test_a_schema_is_taken_as_it_is() -> None:
    schema = Writing.model_validate({"response_schema": nested(20)}).options().response_schema
    assert schema is not None and schema.count("items") == 19


@pytest.mark.parametrize(
    "schema",
    [nested(40), nested(900), {"a": "\ud800"}, {"\ud800": 1}, {"a": "\0"}, {"a": float("nan")}, {"a": "x" * 60_000}],
    ids=["deep", "deeper", "surrogate", "surrogate name", "NUL", "NaN", "long"],
)
def test_a_schema_that_nobody_could_send_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must"):
        Writing.model_validate({"response_schema": schema})
