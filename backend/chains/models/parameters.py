"""The options of a model that requests and prompts share."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, WithJsonSchema, field_validator

from backend.chains.models.prompt import Effort
from backend.kit.text import is_clean

_DEEPEST, _LONGEST = 32, 50_000
"""Limits of a schema: levels, and characters as JSON."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The parameters of a model that a caller chose. None, and `()` for `stop`, leave a parameter to the settings or to
    the model. `response_schema` is a JSON schema as text, its keys sorted."""

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: Effort | None = None
    response_schema: str | None = None


_JSON_SCHEMA = WithJsonSchema(
    {
        "type": "object",
        "description": "A JSON schema. Its other keywords are free.",
        "properties": {"type": {"type": "string"}},
        "additionalProperties": True,
    }
)


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
    response_schema: Annotated[dict[str, Any], _JSON_SCHEMA] | None = Field(
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

    def options(self) -> ModelOptions:
        """The parameters as the services take them."""
        fields = {name: getattr(self, name) for name in Writing.model_fields}
        fields["stop"] = tuple(self.stop or ())
        if self.response_schema is not None:
            fields["response_schema"] = json.dumps(self.response_schema, sort_keys=True)
        return ModelOptions(**fields)
