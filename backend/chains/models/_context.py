"""How long a context Ollama is asked for.

Ollama cuts a prompt that doesn't fit, from its head and without a word, and its own default is short. A model is loaded
anew for another context, so sizes are few and never shrink.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from backend.chains.models._rows import spec_of_row
from backend.chains.models.prompt import Prompt
from backend.chains.text.tokens import estimate_bytes
from backend.config.models_file import ModelSpec

_LEAST = 4_096
"""Tokens. Ollama's own shortest default."""
_MOST = 131_072
"""Tokens that are asked for if the model's own length is unknown."""
_IMAGE = 1_000
"""Tokens that an image takes, about."""
_MESSAGE = 16
"""Tokens that a template writes around a message, at most."""
_CHARACTERS_AT_MOST = 8
"""Characters of a token in any text, on the average."""
_CHARACTERS_MOSTLY = 6.5
"""Characters of a token in all but odd texts, on the average."""
_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model as Ollama describes it. `longest` is its own context and `usual` the one that its Modelfile sets, in
    tokens; None if they are unknown. A model that runs elsewhere (`is_remote`) has no context to set."""

    spec: ModelSpec
    longest: int | None = None
    usual: int | None = None
    is_remote: bool = False

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "OllamaModel":
        """The model of an answer of `/api/show`."""
        details = description.get("model_info")
        sizes = cast("Mapping[str, object]", details if isinstance(details, dict) else {})
        lengths = [n for name, n in sizes.items() if name.endswith(".context_length") and isinstance(n, int) and n > 0]
        usual = _NUM_CTX.search(str(description.get("parameters") or ""))
        capabilities = description.get("capabilities")
        spec = spec_of_row({"capabilities": capabilities, "context_length": lengths[0] if lengths else None})
        if isinstance(capabilities, list) and capabilities:
            # The list is complete: what is not in it, the model can't do.
            abilities = {ours: theirs in capabilities for ours, theirs in _ABILITIES.items()}
            spec = spec.model_copy(update=abilities)
        is_remote = bool(description.get("remote_host") or description.get("remote_model"))
        return cls(spec, lengths[0] if lengths else None, int(usual[1]) if usual else None, is_remote)


_ABILITIES = {"vision": "vision", "tools": "tools", "reasoning": "thinking"}


UNKNOWN = OllamaModel(ModelSpec())
"""A model of which Ollama says nothing."""


@dataclass(frozen=True, slots=True)
class PromptSize:
    """How long a prompt is. `tokens` are an estimate, rather too many than too few."""

    characters: int
    tokens: int

    @classmethod
    def of(cls, prompt: Prompt) -> "PromptSize":
        """The size of a whole prompt."""
        texts = [prompt.system, *(message.text_for_model for message in prompt.messages)]
        tokens = estimate_bytes(sum(len(text.encode("utf-8", "replace")) for text in texts))
        return cls(sum(map(len, texts)), tokens + _MESSAGE * len(texts) + _IMAGE * prompt.image_count)

    def context(self, answer_tokens: int, model: OllamaModel, loaded: int) -> int:
        """The context in tokens for this prompt and its answer: a power of two, or the model's own length if that is
        less. It is never below the Modelfile's, nor below `loaded`, that of the model in memory (0 without one)."""
        size = max(_LEAST, 1 << (self.tokens + answer_tokens - 1).bit_length(), model.usual or 0, loaded)
        return min(size, model.longest or max(_MOST, model.usual or 0, loaded))

    def exceeds(self, context: int) -> bool:
        """Whether the prompt is certainly longer than so many tokens."""
        return self.characters > context * _CHARACTERS_AT_MOST

    def is_cut(self, read: int, context: int) -> bool:
        """Whether Ollama has `read` a part of the prompt only: it filled the context, or read far less than was sent.
        It tells no number, 0, if it had the whole prompt in memory."""
        return read > 0 and (read >= context or self.characters > read * _CHARACTERS_MOSTLY)
