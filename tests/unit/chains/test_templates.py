"""Prompt templates: substitution in one pass, typed variables, and nothing else."""

from typing import Any

import pytest
from pydantic import ValidationError

from backend.chains.models.prompt import Message
from backend.chains.templates import PromptContent, render, variable_names
from backend.errors import Invalid


def content(**fields: Any) -> PromptContent:
    return PromptContent.model_validate(fields)


def filled(text: str, **values: Any) -> str | None:
    return render(content(system=text, variables={name: {} for name in variable_names(text)}), values).system


def test_values_go_where_their_names_are() -> None:
    assert filled("Be {{tone}}, {{ tone }} and {{b_2}}.", tone="kind", b_2="brief") == "Be kind, kind and brief."


@pytest.mark.parametrize(
    "value", ["{{other}}", "{{tone}}", "{{message}}", "\\1 \\g<0> %s {0}", "${7*7}", "{{tone.__class__}}", "}}{{", ""]
)
def test_a_value_is_text_whatever_it_holds(value: str) -> None:
    assert filled("<{{tone}}|{{other}}>", tone=value, other="o") == f"<{value}|o>"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": {"c": 1}}}',
        '{{"a": 1}}',
        "{{}}",
        "{{ a.b }}",
        "{{a['b']}}",
        "{{#if x}}y{{/if}}",
        "{% for x in y %}",
        "{{1}}",
        "{{ x | upper }}",
        "{a}",
        "{{a b}}",
    ],
)
def test_what_is_no_name_in_braces_is_text(text: str) -> None:
    assert filled(text) == text


def test_a_place_in_three_braces_keeps_the_outer_ones() -> None:
    assert filled('{"tone": {{{tone}}}}', tone="x") == '{"tone": {x}}'


def test_numbers_and_booleans_are_written_as_in_json() -> None:
    variables = {"n": {"type": "number"}, "f": {"type": "number"}, "b": {"type": "boolean"}}
    rendered = render(content(system="{{n}} {{f}} {{b}}", variables=variables), {"n": 7, "f": 0.5, "b": True})
    assert rendered.system == "7 0.5 true"
    assert rendered.values == {"n": 7, "f": 0.5, "b": True}


def test_defaults_stand_in_and_are_told() -> None:
    variables = {"tone": {"type": "enum", "values": ["brief", "kind"], "default": "brief"}, "who": {"default": ""}}
    made = content(system="{{tone}}{{who}}", variables=variables)
    assert render(made, {}).system == "brief"
    assert render(made, {"tone": None, "who": "!"}).values == {"tone": "brief", "who": "!"}


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({}, {"s": "is required", "n": "is required"}),
        ({"s": "a", "n": 1, "x": "b"}, {"x": "is no variable of this prompt"}),
        ({"s": 5, "n": "5"}, {"s": "must be a string", "n": "must be a number"}),
        ({"s": "a", "n": True}, {"n": "must be a number"}),
        ({"s": "a", "n": float("nan")}, {"n": "must be a number"}),
        ({"s": "a", "n": 1, "b": 1}, {"b": "must be true or false"}),
        ({"s": "a", "n": 1, "e": "z"}, {"e": "must be one of x, y"}),
        ({"s": "a\0", "n": 1}, {"s": "must not hold NUL characters"}),
    ],
)
def test_what_is_wrong_with_the_values_is_named(values: dict[str, Any], problems: dict[str, str]) -> None:
    variables = {
        "s": {},
        "n": {"type": "number"},
        "b": {"type": "boolean", "default": False},
        "e": {"type": "enum", "values": ["x", "y"], "default": "x"},
    }
    with pytest.raises(Invalid) as caught:
        render(content(system="hi", variables=variables), values)
    assert caught.value.extra["errors"] == [
        {"field": f"prompt.variables.{n}", "problem": p} for n, p in problems.items()
    ]


def test_values_are_bounded_together() -> None:
    with pytest.raises(Invalid, match="50000"):
        filled("{{a}}{{b}}", a="x" * 30_000, b="x" * 30_000)


def test_examples_and_the_template_take_values_too() -> None:
    made = content(
        template="In {{language}}: {{message}}",
        variables={"language": {}},
        examples=[{"user": "Say it in {{language}}", "assistant": "{{language}}!"}],
    )
    rendered = render(made, {"language": "Dutch {{message}}"})
    assert rendered.examples == (
        Message("user", "Say it in Dutch {{message}}"),
        Message("assistant", "Dutch {{message}}!"),
    )
    assert rendered.wrap("What is {{language}}?") == "In Dutch {{message}}: What is {{language}}?"
    assert render(content(system="x"), {}).wrap("as it is") == "as it is"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one of"),
        ({"system": "{{tone}}"}, "declare tone"),
        ({"system": "{{message}}"}, "declare message"),
        ({"examples": [{"user": "{{a}}", "assistant": "{{b}}"}]}, "declare a, b"),
        ({"template": "nothing"}, "must hold {{message}}"),
        ({"system": "x", "variables": {"a b": {}}}, "is no name"),
        ({"system": "x", "variables": {"message": {}}}, "is no name"),
        ({"system": "x", "variables": {"a": {"type": "enum"}}}, "needs them"),
        ({"system": "x", "variables": {"a": {"values": ["b"]}}}, "belong to an enum"),
        ({"system": "x", "variables": {"a": {"type": "number", "default": "1"}}}, "default must be a number"),
        ({"system": "x", "variables": {"a": {"type": "enum", "values": ["b"], "default": "c"}}}, "one of b"),
        ({"system": "a\0b"}, "NUL"),
        ({"system": "x", "code": "y"}, "code"),
        ({"system": "x", "parameters": {"temperature": 9}}, "temperature"),
        ({"system": "x", "parameters": {"api_key": "k"}}, "api_key"),
    ],
)
def test_a_version_that_can_not_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        content(**fields)


def test_values_in_many_places_have_a_bound() -> None:
    made = content(system="{{a}}" * 4_000, variables={"a": {}})
    with pytest.raises(Invalid, match="Shorten"):
        render(made, {"a": "x" * 25_000})
    wrapped = render(content(template="{{message}}" * 1_000), {})
    with pytest.raises(Invalid, match="Shorten"):
        wrapped.wrap("x" * 30_000)
    assert wrapped.wrap("x") == "x" * 1_000


def test_a_number_has_bounds() -> None:
    made = content(system="{{n}}", variables={"n": {"type": "number"}})
    for wrong in (10**400, float("nan"), float("inf")):
        with pytest.raises(Invalid, match="must be a number"):
            render(made, {"n": wrong})
