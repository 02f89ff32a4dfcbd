"""The options of a model that requests and prompts share."""

import json
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, field_validator

from backend.chains.models.prompt import Effort
from backend.kit.text import is_clean

_DEEPEST, _LONGEST = 32, 50_000
"""Limits of a schema: levels, and characters as JSON."""


class Writing(BaseModel):
    """Parameters of a model. Unset: those of the settings, else the model's own."""

    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Maximum length of the answer, in tokens.")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=1, max_length=4, description="The answer ends before the first of these texts."
    )
    reasoning_effort: Effort | None = Field(None, description="How much a reasoning model thinks.")
    response_schema: dict[str, Any] | None = Field(
        None, description="A JSON schema of type object that the answer must follow, if the model supports it."
    )

    @field_validator("response_schema")
    @classmethod
    def _sendable(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        level: list[object] = [value]
        for _ in range(_DEEPEST):
            members = [cast("dict[str, object]", value).values() for value in level if isinstance(value, dict)]
            items = [cast("list[object]", value) for value in level if isinstance(value, list)]
            level = [value for values in (*members, *items) for value in values]
        if level:
            raise ValueError(f"must not be nested deeper than {_DEEPEST}")
        try:
            text = json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError("must hold JSON's numbers only: no NaN, no infinity") from None
        if len(text) > _LONGEST or not is_clean(value):
            raise ValueError(f"must have at most {_LONGEST} characters, and no NUL characters or lone surrogates")
        return value

    def named(self) -> dict[str, Any]:
        """The options that are set, by field of `Parameters` and in its types."""
        values = {name: getattr(self, name) for name in Writing.model_fields}
        options = {name: value for name, value in values.items() if value is not None}
        if "stop" in options:
            options["stop"] = tuple(options["stop"])
        if "response_schema" in options:
            options["response_schema"] = json.dumps(options["response_schema"], sort_keys=True)
        return options
