"""Prompt templates: texts in which `{{name}}` is replaced by a value.

The values are inserted once: there is no code, no attribute and no nesting. A value that contains `{{x}}` is inserted
as it is. Braces around something that is not a name (as in JSON) are text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from backend.chains.models.parameters import Writing
from backend.chains.models.prompt import Message
from backend.errors import Invalid
from backend.kit.text import check_clean, clean_text

_MAX_VALUES, _MAX_LENGTH = 50_000, 200_000
"""Characters: of all values together, and of all texts together with their values."""
_MAX_NUMBER = 10**18
_InRange = Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)

Value = (
    StrictBool
    | Annotated[StrictInt, _InRange]
    | Annotated[StrictFloat, _InRange]
    | Annotated[StrictStr, Field(max_length=_MAX_VALUES)]
)
MESSAGE = "message"
"""The variable of `template` that is replaced by the user's message."""
_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,49})\s*\}\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")

Text = Annotated[str, Field(max_length=20_000)]


class Variable(BaseModel):
    """A variable of a prompt. Without a default, its value is required."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["string", "number", "boolean", "enum"] = "string"
    values: list[Annotated[str, Field(max_length=200)]] | None = Field(
        None, min_length=1, max_length=100, description="Allowed values of an enum."
    )
    default: Value | None = None
    description: str | None = Field(None, max_length=500)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "enum") != (self.values is not None):
            raise ValueError("values belong to an enum, and an enum needs them")
        if self.default is not None and (problem := self.problem(self.default)) is not None:
            raise ValueError(f"default {problem}")
        return self

    def problem(self, value: Value) -> str | None:
        """Why the variable can't have this value; None if it can."""
        match self.type:
            case "string":
                if not isinstance(value, str):
                    return "must be a string"
                return None if value == clean_text(value) else "must not hold NUL characters"
            case "boolean":
                return None if isinstance(value, bool) else "must be true or false"
            case "number":
                number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER
                return None if number else "must be a number"
            case "enum":
                allowed = self.values or []
                return None if value in allowed else f"must be one of {', '.join(allowed)}"


class Example(BaseModel):
    """An example for the model: a message and its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: Text
    assistant: Text


class PromptParameters(Writing):
    """Parameters of the model, if the request doesn't set them."""

    model_config = ConfigDict(extra="forbid")


class PromptContent(BaseModel):
    """One version of a prompt. `{{name}}` in its texts is replaced by the value of a variable."""

    model_config = ConfigDict(extra="forbid")

    system: Text | None = Field(None, description="Replaces the default system prompt.")
    template: Text | None = Field(
        None, description="Replaces the user's message. Must contain `{{message}}`, the original message."
    )
    variables: dict[str, Variable] = Field({}, max_length=50)
    examples: list[Example] = Field(
        [], max_length=50, description="Example messages that come before the conversation."
    )
    model: str | None = Field(
        None, max_length=200, description="The model if neither the request nor the session names one."
    )
    parameters: PromptParameters | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.system is None and self.template is None and not self.examples:
            raise ValueError("say at least one of system, template and examples")
        for name in self.variables:
            if not _NAME.fullmatch(name) or name == MESSAGE:
                raise ValueError(f"variables: {name!r} is no name: letters, digits and _, at most 50; not message")
        if self.template is not None and MESSAGE not in variable_names(self.template):
            raise ValueError("template: must hold {{message}}, where the user's message goes")
        declared = {*self.variables}
        texts = [self.system or "", *(text for example in self.examples for text in (example.user, example.assistant))]
        used = {name for text in texts for name in variable_names(text)} | (
            variable_names(self.template or "") - {MESSAGE}
        )
        if unknown := sorted(used - declared):
            raise ValueError(f"variables: declare {', '.join(unknown)}, which the texts use")
        check_clean(self.model_dump())
        return self


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A prompt with its values inserted. `values` also contains the defaults of variables without a given value."""

    content: PromptContent
    values: Mapping[str, Value]
    system: str | None
    examples: tuple[Message, ...]

    def wrap(self, message: str) -> str:
        """The text that the model is sent instead of the user's message. Raises Invalid if it is too long."""
        if (template := self.content.template) is None:
            return message
        texts = {**_texts(self.values), MESSAGE: message}
        _check_length([template], texts)
        return _fill(template, texts)


def variable_names(text: str) -> set[str]:
    """The names of the variables in a text."""
    return set(_PLACE.findall(text))


def render(content: PromptContent, given_values: Mapping[str, Value | None]) -> FilledPrompt:
    """The prompt with these values. Raises Invalid, which names values that are missing, unknown or of a wrong type."""
    values: dict[str, Value] = {}
    problems = {name: "is no variable of this prompt" for name in given_values if name not in content.variables}
    for name, variable in content.variables.items():
        value = given_values.get(name)
        value = variable.default if value is None else value
        problem = "is required" if value is None else variable.problem(value)
        if problem is not None:
            problems[name] = problem
        elif value is not None:
            values[name] = value
    if problems:
        errors = [{"field": f"prompt.variables.{name}", "problem": text} for name, text in problems.items()]
        raise Invalid("; ".join(f"{e['field']}: {e['problem']}" for e in errors[:5]), errors=errors[:20])
    texts = _texts(values)
    if sum(map(len, texts.values())) > _MAX_VALUES:
        raise Invalid(f"prompt.variables: have more than {_MAX_VALUES} characters together. Shorten them.")
    fixed = [
        content.system or "",
        *(text for example in content.examples for text in (example.user, example.assistant)),
    ]
    _check_length(fixed, texts)
    examples: list[Message] = []
    for example in content.examples:
        examples += [
            Message("user", _fill(example.user, texts)),
            Message("assistant", _fill(example.assistant, texts)),
        ]
    system = None if content.system is None else _fill(content.system, texts)
    return FilledPrompt(content, values, system, tuple(examples))


def _check_length(fixed: Sequence[str], values: Mapping[str, str]) -> None:
    """Raise Invalid if the texts with their values are too long."""
    places = (values.get(place.group(1), "") for text in fixed for place in _PLACE.finditer(text))
    if sum(map(len, fixed)) + sum(map(len, places)) > _MAX_LENGTH:
        raise Invalid(f"prompt: has more than {_MAX_LENGTH} characters with these variables. Shorten them.")


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place.group(1)], text)


def _texts(values: Mapping[str, Value]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
