"""The context that Ollama is asked for."""

from typing import Any

import pytest

from backend.chains.models._context import UNKNOWN, OllamaModel, PromptSize
from backend.chains.models.prompt import Image, Parameters, Prompt

_SHOWN: dict[str, Any] = {
    "parameters": 'stop                           "<|end|>"\nnum_ctx                        8192\ntemperature 0.6',
    "model_info": {"general.architecture": "llama", "llama.context_length": 131_072, "llama.block_count": 16},
    "capabilities": ["completion", "tools"],
}


def prompt(text: str, images: int = 0) -> Prompt:
    return Prompt("", (), text, text, Parameters(100), images=(Image("image/png", b""),) * images)


def test_a_description_is_read() -> None:
    model = OllamaModel.of(_SHOWN)
    assert (model.longest, model.usual, model.is_remote) == (131_072, 8192, False)
    assert (model.spec.kind, model.spec.context) == ("chat", 131_072)
    assert (model.spec.tools, model.spec.vision, model.spec.reasoning) == (True, False, False)


@pytest.mark.parametrize(
    "shown",
    [{}, {"model_info": None}, {"model_info": {"x.context_length": "long"}, "capabilities": 5, "parameters": 7}],
)
def test_a_description_of_nonsense_says_nothing(shown: dict[str, Any]) -> None:
    assert OllamaModel.of(shown) == UNKNOWN


def test_an_embedding_model_is_one() -> None:
    assert OllamaModel.of({"capabilities": ["embedding"]}).spec.kind == "embedding"


@pytest.mark.parametrize(
    ("characters", "answer", "model", "loaded", "context"),
    [
        (100, 100, UNKNOWN, 0, 4096),
        (30_000, 2000, UNKNOWN, 0, 16_384),
        (30_000, 2000, UNKNOWN, 32_768, 32_768),
        (30_000, 2000, OllamaModel(UNKNOWN.spec, longest=8192), 0, 8192),
        (100, 100, OllamaModel(UNKNOWN.spec, longest=2048), 0, 2048),
        (100, 100, OllamaModel(UNKNOWN.spec, longest=131_072, usual=20_000), 0, 20_000),
        (90_000, 100, OllamaModel(UNKNOWN.spec, longest=131_072, usual=20_000), 0, 32_768),
        (5_000_000, 100, UNKNOWN, 0, 131_072),
    ],
)
def test_it_is_as_long_as_prompt_and_answer(
    characters: int, answer: int, model: OllamaModel, loaded: int, context: int
) -> None:
    assert PromptSize.of(prompt("word " * (characters // 5))).context(answer, model, loaded) == context


def test_images_need_room() -> None:
    assert PromptSize.of(prompt("", images=5)).tokens > 5_000


def test_a_cut_is_seen() -> None:
    size = PromptSize.of(prompt("word " * 6000))
    assert [size.is_cut(read, 16_384) for read in (0, 4096, 6000, 16_384)] == [False, True, False, True]
    assert (size.exceeds(2048), size.exceeds(4096)) == (True, False)
