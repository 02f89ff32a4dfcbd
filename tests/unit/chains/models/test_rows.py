"""What servers say about their models, each in its own words."""

from typing import Any

import pytest

from backend.chains.models._rows import in_order, spec_of_row
from backend.config.models_file import ModelKind

_OUTPUTS = {"input_modalities": ["text", "image"], "output_modalities": ["text"]}


@pytest.mark.parametrize(
    ("row", "kind", "known"),
    [
        ({"id": "x", "object": "model", "owned_by": "openai"}, None, {}),
        ({"id": "q", "owned_by": "vllm", "max_model_len": 32_768}, None, {"context": 32_768}),
        (
            {"id": "s", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192, "n_ctx": 2048}, "architecture": _OUTPUTS},
            None,
            {"context": 2048, "vision": True},
        ),
        ({"id": "l", "type": "llm", "max_context_length": 131_072}, "chat", {"context": 131_072, "vision": False}),
        (
            {
                "id": "v",
                "type": "vlm",
                "max_context_length": 9,
                "loaded_context_length": 5,
                "capabilities": ["tool_use"],
            },
            "chat",
            {"context": 5, "vision": True, "tools": True},
        ),
        ({"id": "n", "type": "embeddings"}, "embedding", {}),
        (
            {
                "id": "mistral-small",
                "capabilities": {"completion_chat": True, "function_calling": True, "vision": False},
                "max_context_length": 131_072,
            },
            "chat",
            {"context": 131_072, "tools": True, "vision": False},
        ),
        ({"id": "mistral-embed", "capabilities": {"completion_chat": False}}, "embedding", {}),
        ({"id": "classifier-1", "capabilities": {"completion_chat": False}}, "other", {}),
        ({"id": "a/b", "type": "chat", "context_length": 8192}, "chat", {"context": 8192}),
        ({"id": "a/c", "type": "rerank"}, "reranker", {}),
        ({"id": "a/d", "type": "moderation"}, "moderation", {}),
        ({"id": "a/e", "type": "image"}, "image", {}),
        ({"id": "a/f", "type": "transcribe"}, "audio", {}),
        (
            {
                "id": "openrouter/x",
                "architecture": _OUTPUTS,
                "context_length": 200_000,
                "top_provider": {"max_completion_tokens": 64_000},
                "supported_parameters": ["tools", "reasoning", "structured_outputs"],
            },
            "chat",
            {
                "context": 200_000,
                "max_output": 64_000,
                "vision": True,
                "tools": True,
                "reasoning": True,
                "structured_output": True,
                "temperature": False,
            },
        ),
        ({"id": "i", "architecture": {"output_modalities": ["image"]}}, "image", {}),
        ({"id": "g", "context_window": 131_072, "max_completion_tokens": 32_768}, None, {"context": 131_072}),
        ({"id": "f", "supports_chat": False, "supports_image_input": False}, "other", {"vision": False}),
        ({"id": "f", "supports_chat": True, "supports_tools": True}, "chat", {"tools": True}),
        ({"name": "command-a", "endpoints": ["chat", "summarize"], "context_length": 256_000}, "chat", {}),
        ({"name": "multi", "endpoints": ["embed", "classify"]}, "embedding", {}),
        ({"name": "rr", "endpoints": ["rerank"]}, "reranker", {}),
        (
            {"name": "models/gemini", "supportedGenerationMethods": ["generateContent"], "inputTokenLimit": 9},
            None,
            {},
        ),
        ({"name": "models/text", "supportedGenerationMethods": ["embedContent"]}, "embedding", {}),
        ({"id": "bge", "model_type": "embedding"}, "embedding", {}),
        ({"id": "q", "model_type": "LLM", "model_ability": ["chat", "vision"]}, "chat", {"vision": True}),
        ({"id": "i", "capabilities": ["embed"]}, "embedding", {}),
        (
            {"id": "claude", "type": "model", "capabilities": {"image_input": {"supported": True}}},
            None,
            {"vision": True},
        ),
    ],
)
def test_a_row_says_what_its_model_can_do(row: dict[str, Any], kind: ModelKind | None, known: dict[str, Any]) -> None:
    spec = spec_of_row(row)
    assert spec.kind == kind
    assert {name: getattr(spec, name) for name in known} == known


@pytest.mark.parametrize("value", [None, 0, -1, True, "many", 1.5, [], {}, 10**30])
def test_nonsense_is_unknown(value: object) -> None:
    fields = ("type", "capabilities", "architecture", "max_model_len", "meta", "supported_parameters", "status")
    assert spec_of_row({"id": value, **dict.fromkeys(fields, value)}).model_dump(exclude_none=True) in (
        {},
        {"tools": False, "temperature": False},
    )


def test_what_is_loaded_comes_first() -> None:
    rows = {"c": {}, "b": {"state": "loaded"}, "a": {"state": "not-loaded"}, "d": {"status": {"value": "loaded"}}}
    assert in_order(rows) == ("b", "d", "a", "c")
