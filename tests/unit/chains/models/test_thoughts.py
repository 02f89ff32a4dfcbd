"""Thoughts in the text of a model: reasoning in whatever form they come, and wherever the stream cuts them."""

from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chains.models.prompt import Finish, Output, Parameters, Prompt, Reasoning, Text, ThoughtEnd, Tokens
from backend.chains.models.thoughts import ThinkingModel, ThoughtFilter
from backend.chains.text.thought_tags import THOUGHT_TAGS
from backend.errors import ProviderFailed

PROMPT = Prompt("", (), "Hi", "Hi", Parameters(max_tokens=100))
SCHEMA = Prompt("", (), "Hi", "Hi", Parameters(max_tokens=100, response_schema="{}"))


def joined(outputs: Sequence[Output]) -> tuple[str, str, str | None]:
    """Reasoning, text and finish reason of these outputs."""
    reasoning = text = ""
    reason = None
    for output in outputs:
        match output:
            case Text(more):
                text += more
            case Reasoning(more):
                reasoning += more
            case ThoughtEnd():
                reasoning, text = reasoning + text, ""
            case Finish(reason):
                pass
            case _:
                pass
    return reasoning, text, reason


def filtered(pieces: Sequence[str | Output], **options: Any) -> tuple[str, str, str | None]:
    """What becomes of text that comes in these pieces."""
    thoughts = ThoughtFilter(**options)
    outputs: list[Output] = []
    for piece in pieces:
        if isinstance(piece, str) and thoughts.passes(piece):
            outputs.append(Text(piece))
        else:
            outputs += thoughts.outputs(Text(piece) if isinstance(piece, str) else piece)
    return joined([*outputs, *thoughts.close()])


STOP = Finish("stop")
ANALYSIS = "<|channel|>analysis<|message|>Let me see.<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>It is so."
FORMS = [
    *(f"{opening}\nLet me see.\n{closing}\n\nIt is so." for opening, closing in THOUGHT_TAGS),
    "\n <think>Let me see.</think>It is so.",
    "<Think>Let me see.</THINK>It is so.",
    "<think>Let me see.</think>\n<answer>It is so.</answer>",
    "<|START_THINKING|>Let me see.<|END_THINKING|><|START_RESPONSE|>It is so.<|END_RESPONSE|>",
    f"{ANALYSIS}{FINAL}",
    f"{ANALYSIS}{FINAL}<|return|>",
    f"<|start|>assistant{ANALYSIS}\n{FINAL}<|end|>",
    "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|message|>It is so.",
    f"{ANALYSIS}It is so.",
    "analysisLet me see.assistantfinalIt is so.",
    "Let me see.\n</think>\n\nIt is so.",
    "Let me see.</think>It is so.",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_thought_is_reasoning_in_every_form(form: str) -> None:
    for pieces in ([form], list(form)):
        reasoning, text, reason = filtered([*pieces, STOP])
        assert (reasoning.strip(), text, reason) == ("Let me see.", "It is so.", "stop")


def test_two_thoughts_in_a_row_are_two_paragraphs_of_reasoning() -> None:
    text = "<think>Let me see.</think>\n\n<think>So be it.</think>\n\nIt is so."
    for pieces in ([text], list(text)):
        assert filtered([*pieces, STOP]) == ("Let me see.\n\nSo be it.", "It is so.", "stop")


@pytest.mark.parametrize(
    "text",
    [
        "It is so.",
        "  It is so.\n",
        "The tag <think>comes first</think>, then the answer.",
        "```\n<think>x</think>\n```\nThat is how R1 answers.",
        "`<think>` is a tag.",
        "Thoughts end with `</think>`, then the answer follows.",
        "Thoughts end with </think>, then the answer follows.",
        "```xml\n<think>\nx\n</think>\n```\nDone.",
        "```\nx\n</think>\n\ny\n```\nDone.",
        "A <think>\nx\n</think>\n\nanswer.",
        "<thin air> is no tag.",
        "<b>Bold</b>",
        "[THIS] and [1]",
        "<|im_start|> is a token.",
        "analysis of the text: fine",
        "analysis",
        "Say 1 < 2 and </p>.",
        "◁ ◁think",
        "<",
        " \n",
    ],
)
def test_text_with_a_tag_elsewhere_or_none_is_unchanged(text: str) -> None:
    for pieces in ([text], list(text)):
        assert filtered([*pieces, STOP]) == ("", text, "stop")


@pytest.mark.parametrize("cut", ["<think>Let me", "<|channel|>analysis<|message|>Let me", "[THINK]Let me", "<think>"])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_thought_that_never_ends_is_an_answer_that_was_cut(cut: str, reason: str) -> None:
    reasoning, text, told = filtered([cut, Finish(reason)])
    assert (reasoning, text, told) == ("Let me" if "Let me" in cut else "", "", "length")


def test_an_empty_thought_leaves_no_trace() -> None:
    assert filtered(["<think>\n\n</think>\n\n", "It is so.", STOP]) == ("", "It is so.", "stop")
    assert filtered(["</think>\n\nIt is so.", STOP]) == ("", "It is so.", "stop")


def test_reasoning_of_the_provider_passes_and_a_stray_closing_tag_goes() -> None:
    pieces = [Reasoning("Let me see."), "</think>\n\n", "It is so.\n</think>\n", Tokens(1, 2), STOP]
    assert filtered(pieces) == ("Let me see.", "It is so.\n</think>\n", "stop")


def test_a_model_has_tags_of_its_own() -> None:
    text = "<<hm>>Let me see.<</hm>>It is so."
    for pieces in ([text], list(text)):
        assert filtered([*pieces, STOP], tags=("<<hm>>", "<</hm>>")) == ("Let me see.", "It is so.", "stop")
    assert filtered([text, STOP])[0] == ""


def test_two_thoughts_are_parted_however_the_second_one_comes() -> None:
    text = "[THINK]One.[/THINK][THINK][two[/THINK]It is so."
    for pieces in ([text], list(text)):
        assert filtered([*pieces, STOP]) == ("One.\n\n[two", "It is so.", "stop")


BITS = st.sampled_from(
    [
        *(tag for pair in THOUGHT_TAGS[:3] for tag in pair),
        *("[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<|channel|>", "<|message|>", "<|end|>", "<|start|>"),
        *("<answer>", "</answer>", "analysis", "final", "assistantfinal", "word", "Word. ", "\n", "\n\n", " ", "`"),
        *("```", "<", "</", "<|", "think>", "◁", "[", "🌍", "ü", "1"),
    ]
)


@settings(deadline=None, max_examples=400)
@given(bits=st.lists(BITS, max_size=30), cuts=st.lists(st.integers(0, 200), max_size=8), inside=st.booleans())
def test_random_cuts_change_nothing(bits: list[str], cuts: list[int], inside: bool) -> None:
    text = "".join(bits)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    options = {"begins_inside": "</think>"} if inside else {}
    whole = filtered([text, STOP], **options)
    assert filtered([*pieces, STOP], **options) == whole
    assert filtered([*text, STOP], **options) == whole


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(1, 9))
def test_text_without_tags_is_unchanged(text: str, size: int) -> None:
    text = text.replace("<", "").replace("[", "").replace("◁", "")
    if not text.lstrip().startswith("analysis"):
        assert filtered([text[i : i + size] for i in range(0, len(text), size)])[1] == text


@pytest.mark.parametrize("hostile", ["<", "<think", " ", "</think> ", "<|", "<think>\n", "`", "</think>,"])
def test_hostile_text_is_held_back_within_bounds(hostile: str) -> None:
    thoughts, longest = ThoughtFilter(), 0
    text = hostile * (20_000 // len(hostile))
    for at in range(0, len(text), 10):
        for _ in thoughts.outputs(Text(text[at : at + 10])):
            pass
        longest = max(longest, len(thoughts._buffer))
    assert longest <= 1_100


class Scripted:
    """A model that gives these outputs, one list a call; an exception among them is raised."""

    writes = True

    def __init__(self, *calls: Sequence[Output | Exception]) -> None:
        self._calls = list(calls)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        for output in self._calls.pop(0):
            if isinstance(output, Exception):
                raise output
            yield output


async def written(model: ThinkingModel, prompt: Prompt = PROMPT) -> list[Output]:
    return [output async for output in model.stream(prompt)]


async def test_a_model_that_closed_a_thought_without_opening_it_begins_the_next_answer_with_one() -> None:
    bare = [Text("Let me see.\n</think>\n\nIt is so."), STOP]
    model = ThinkingModel(Scripted(bare, bare, [Text('{"a": 1}'), STOP]))
    first, second = await written(model), await written(model)
    assert first == [Text("Let me see.\n"), ThoughtEnd(), Text("It is so."), STOP]
    assert second == [Reasoning("Let me see."), Text("It is so."), STOP]
    assert await written(model, SCHEMA) == [Text('{"a": 1}'), STOP], "a schema leaves no room for a thought"


async def test_an_answer_without_the_expected_thought_is_shown_all_the_same() -> None:
    bare = [Text("Let me see.\n</think>\n\nIt is so."), STOP]
    plain: list[Output] = [Text("It is "), Text("so."), STOP]
    tagged: list[Output] = [Text("<think>Let me see.</think>It is so."), STOP]
    elsewhere: list[Output] = [Reasoning("Let me see."), Text("It is so."), STOP]
    model = ThinkingModel(Scripted(bare, tagged, elsewhere, plain, plain))
    await written(model)
    assert joined(await written(model)) == ("Let me see.", "It is so.", "stop")
    assert joined(await written(model)) == ("Let me see.", "It is so.", "stop")
    assert joined(await written(model))[1:] == ("It is so.", "stop")
    assert await written(model) == plain, "it is expected no longer"


async def test_a_model_whose_prompt_opens_the_thought_is_told_so_by_the_file() -> None:
    model = ThinkingModel(Scripted([Text("Let me see.</hm>It is so."), STOP]), ("", "</hm>"))
    assert await written(model) == [Reasoning("Let me see."), Text("It is so."), STOP]


async def test_what_was_held_back_is_kept_when_a_stream_breaks() -> None:
    stream = ThinkingModel(Scripted([Text("<thin"), ProviderFailed("no")])).stream(PROMPT)
    assert await anext(stream) == Text("<thin")
    with pytest.raises(ProviderFailed):
        await anext(stream)
