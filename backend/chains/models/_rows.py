"""What servers say about their models in the rows of their lists, each in its own words, as `ModelSpec`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

from backend.chains.models.kinds import kind_by_name
from backend.chains.models.provider import Endpoint
from backend.config.models_file import ModelKind, ModelSpec

Get = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Gets the JSON object at a URL."""
_MOST_TOKENS = 100_000_000
"""A larger number is no number of tokens."""
_KINDS: Mapping[ModelKind, str] = {
    "chat": "chat llm vlm completion_chat completion generate text-generation language code",
    "reranker": "rerank reranker score text-ranking",
    "embedding": "embed embedding embeddings embedcontent feature-extraction sentence-similarity",
    "audio": "audio tts stt speech transcribe transcription text-to-speech speech-to-text audio_speech "
    "audio_transcription automatic-speech-recognition",
    "image": "image text-to-image image-generation image_generation",
    "video": "video text-to-video",
    "moderation": "moderation moderations classify",
    "ocr": "ocr",
}
"""The words of servers for the kinds. The first kind that has a word counts: a model that chats may do more."""
_TOLD_IN = (
    *("type", "model_type", "mode", "task", "pipeline_tag", "capabilities", "endpoints", "model_ability"),
    *("categories", "supportedGenerationMethods"),
)
_CONTEXTS = (
    *("loaded_context_length", "max_model_len", "context_length", "context_window", "max_context_length"),
    *("max_input_tokens", "inputTokenLimit", "n_ctx", "n_ctx_train"),
)
_OUTPUTS = ("max_completion_tokens", "max_output_tokens", "outputTokenLimit")
_TOOLS = frozenset({"tools", "tool_use", "function_calling"})
_SEES = frozenset({"vision", "vlm", "multimodal", "image_input"})


def spec_of_row(row: Mapping[str, Any]) -> ModelSpec:
    """What a row of a list says about its model. What it doesn't say, or says in a way that is unknown, is None."""
    words = frozenset(word for name in _TOLD_IN for word in _words(row.get(name)))
    inputs, outputs = (_modalities(row, side) for side in ("input", "output"))
    parameters = _words(row.get("supported_parameters"))
    abilities = words | parameters
    tools = True if abilities & _TOOLS or row.get("supports_tools") is True else None
    return ModelSpec(
        kind=_kind(row, words, outputs),
        context=_tokens((row, row.get("meta"), row.get("metadata")), _CONTEXTS),
        max_output=_tokens((row, row.get("top_provider")), _OUTPUTS),
        vision=_vision(row, words, inputs),
        tools=False if parameters and tools is None else tools,
        reasoning=True if abilities & {"reasoning", "thinking"} or row.get("thinking") is True else None,
        structured_output=True if "structured_outputs" in abilities else None,
        temperature=False if parameters and "temperature" not in parameters else None,
    )


def _kind(row: Mapping[str, Any], words: frozenset[str], outputs: frozenset[str]) -> ModelKind | None:
    if row.get("owned_by") == "llamacpp":
        # Its server says of every model that it completes texts.
        return None
    kind = _first_kind(words)
    if kind is None and outputs:
        kind = "chat" if "text" in outputs else _first_kind(outputs) or "other"
    if row.get("supports_chat") is False or _field(row, "capabilities", "completion_chat") is False:
        name = str(row.get("id") or row.get("name") or "")
        return _first_kind(words.difference(_KINDS["chat"].split())) or kind_by_name(name) or "other"
    return "chat" if row.get("supports_chat") is True else kind


def _first_kind(words: Iterable[str]) -> ModelKind | None:
    known = set(words)
    return next((kind for kind, theirs in _KINDS.items() if not known.isdisjoint(theirs.split())), None)


def _vision(row: Mapping[str, Any], words: frozenset[str], inputs: frozenset[str]) -> bool | None:
    if inputs:
        return "image" in inputs
    told = (row.get("supports_image_input"), row.get("supports_vision"), _field(row, "capabilities", "vision"))
    if words & _SEES:
        return True
    # LM Studio has a type of its own for models that see.
    return next((sees for sees in told if isinstance(sees, bool)), False if row.get("type") == "llm" else None)


def _words(value: object) -> frozenset[str]:
    """The words of a field: of a text, a list, or an object whose values are true."""
    if isinstance(value, str):
        return frozenset({value.lower()})
    if isinstance(value, list):
        return frozenset(str(word).lower() for word in cast(list[object], value))
    if isinstance(value, dict):
        fields = cast(dict[object, object], value)
        return frozenset(str(word).lower() for word, is_true in fields.items() if _is_true(is_true))
    return frozenset()


def _is_true(value: object) -> bool:
    # Anthropic's capabilities are objects.
    return value is True or (isinstance(value, dict) and cast(dict[str, object], value).get("supported") is True)


def _field(row: Mapping[str, Any], name: str, inner: str) -> object:
    """The field `inner` of the object in a field; None without such an object."""
    fields = row.get(name)
    return cast(dict[str, object], fields).get(inner) if isinstance(fields, dict) else None


def _modalities(row: Mapping[str, Any], side: str) -> frozenset[str]:
    name = f"{side}_modalities"
    return _words(row.get(name) or _field(row, "architecture", name))


def _tokens(places: Iterable[object], names: Iterable[str]) -> int | None:
    """The first number of tokens under one of the names."""
    fields = [cast(dict[str, object], place) for place in places if isinstance(place, dict)]
    numbers = (place[name] for name in names for place in fields if name in place)
    return next((n for n in numbers if isinstance(n, int) and n is not True and 0 < n <= _MOST_TOKENS), None)


def in_order(rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of a server's models: first those that are loaded, which answer at once."""
    return tuple(sorted(rows, key=lambda name: (not _is_loaded(rows[name]), name)))


def _is_loaded(row: Mapping[str, Any]) -> bool:
    return "loaded" in (row.get("state"), _field(row, "status", "value"))


async def with_details(
    rows: Mapping[str, Mapping[str, Any]], endpoint: Endpoint, get: Get
) -> dict[str, Mapping[str, Any]]:
    """The rows with what a llama.cpp or LM Studio says at addresses of its own."""
    owners = {row.get("owned_by") for row in rows.values()} | {endpoint.kind.name}
    root = endpoint.root.removesuffix("/v1")
    more: dict[str, Mapping[str, Any]] = {}
    # These addresses are theirs alone, and old versions don't have them.
    with suppress(Exception):
        if not owners.isdisjoint({"llamacpp"}) and len(rows) == 1:
            properties = await get(f"{root}/props")
            inputs = ["text", "image"] if properties["modalities"].get("vision") else ["text"]
            context = properties["default_generation_settings"]["n_ctx"]
            more = {name: {"owned_by": "llamacpp", "n_ctx": context, "input_modalities": inputs} for name in rows}
        elif not owners.isdisjoint({"lmstudio", "organization_owner", "organization-owner"}):
            more = {str(row["id"]): row for row in (await get(f"{root}/api/v0/models"))["data"]}
    return {name: {**row, **more.get(name, {})} for name, row in rows.items()}
