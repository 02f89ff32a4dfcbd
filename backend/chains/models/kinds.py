"""What a model is for, by its name: for servers that list names and say nothing about them."""

import re
from functools import lru_cache

from backend.config.models_file import ModelKind, ModelSpec

_CHATS = frozenset({"chat", "instruct", "it", "vl", "llava"})
"""Words of models that chat, whatever else they can do."""
_KINDS: tuple[tuple[ModelKind, str, str], ...] = (
    ("reranker", "monot5", r"rerank|re-rank|ranker\b|cross-?encoder|ms-marco"),
    (
        "embedding",
        "bge gte gtr e5 voyage minilm mpnet clip siglip stella labse uae",
        r"embed(?!ded)|^paraphrase|bert\b|roberta\b|sentence-t5|instructor-(base|large|xl)|distiluse|contriever|splade",
    ),
    (
        "audio",
        "tts stt asr bark kokoro piper lyria sensevoice moonshine",
        r"whisper|parakeet|transcri(be|ption)|speech|wav2vec|musicgen|xtts|(?<!in)voice|orpheus|realtime|seamless-m4t|"
        r"\bcanary-(\d|qwen)",
    ),
    (
        "image",
        "flux flux1 sdxl sd3 imagen midjourney pixart kandinsky ideogram recraft",
        r"dall-?e\b|diffusion|sd-turbo|(gpt|grok-\d+|qwen|hunyuan|z)-image|cogview|seedream|controlnet|hidream",
    ),
    ("video", "sora veo kling ltx svd mochi", r"cogvideo|hunyuan-?video|\bwan2"),
    ("moderation", "", r"moderation|\w*guard\d*\b|guardian|shield-?gemma"),
    ("ocr", "ocr", r"\w+ocr\b"),
    ("completion", "babbage davinci curie ada", r"^(.*/)?gpt-3\.5-turbo-instruct"),
    ("other", "mmproj reward eagle", r"\beagle3"),
)
"""Kinds, each with words of names and a pattern of parts of names."""
_PATTERNS: tuple[tuple[ModelKind, frozenset[str], re.Pattern[str]], ...] = tuple(
    (kind, frozenset(words.split()), re.compile(pattern)) for kind, words, pattern in _KINDS
)
_WEAK: tuple[tuple[ModelKind, str], ...] = (("audio", "audio"), ("video", "video"), ("completion", "base"))
"""Words that models have, too, that chat about such a thing: they count if the name has no word of `_CHATS`."""
MUTE: frozenset[ModelKind] = frozenset({"embedding", "reranker", "audio", "image", "video"})
"""The kinds of models that have no chat API at all."""


@lru_cache(4096)
def kind_by_name(name: str) -> ModelKind | None:
    """What a model with this name is for; None if the name doesn't say, as that of most models that chat."""
    lower = name.lower().replace("_", "-")
    words = frozenset(re.split(r"[^a-z0-9]+", lower))
    for kind, marks, pattern in _PATTERNS:
        if words & marks or pattern.search(lower):
            return kind
    if words & _CHATS:
        return None
    kinds: list[ModelKind] = [kind for kind, word in _WEAK if word in words]
    return kinds[0] if kinds else None


def kind_of(name: str, *specs: ModelSpec | None) -> ModelKind:
    """What a model is for: what the first of `specs` says that says it, else what its name says."""
    kinds: list[ModelKind] = [spec.kind for spec in specs if spec is not None and spec.kind is not None]
    if not kinds and (kind := kind_by_name(name)) is not None:
        return kind
    return kinds[0] if kinds else "chat"
