"""How servers and models differ from what is usual: `quirks` in MODELS_FILE, for a provider or for one model."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Omissible = Literal["temperature", "top_p", "seed", "reasoning_effort"]
"""Parameters without which a model still does what it was asked."""
Limit = Literal["max_tokens", "max_completion_tokens", "both", "none"]
SystemRole = Literal["system", "developer", "user"]
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class ModelQuirks(BaseModel):
    """The quirks of a model. None, and an empty list, mean: as is usual for its provider."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    limit: Limit | None = Field(default=None, description="What the limit of the answer is called (OpenAI's API).")
    stream_options: bool | None = Field(default=None, description="Whether `stream_options` is sent (OpenAI's API).")
    seed: Literal["seed", "random_seed"] | None = Field(default=None, description="What the seed is called.")
    effort: Literal["reasoning_effort", "reasoning"] | None = Field(
        default=None, description="What the effort is called."
    )
    system_role: SystemRole | None = Field(
        default=None, description="Who says the system prompt; `user`: it is the beginning of the first message."
    )
    merge: bool | None = Field(default=None, description="Whether messages of one role in a row become one message.")
    stop: bool | None = Field(
        default=None, description="Whether `stop` is sent. The server itself ends the answer there in any case."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="The only temperature that it takes.")
    omit: tuple[Omissible, ...] = Field(default=(), description="Parameters that are never sent.")
    finish_reasons: dict[Tag, Literal["stop", "length", "content_filter", "error"]] = Field(
        default={}, description="What its own finish reasons mean."
    )
    think_tags: tuple[Annotated[str, Field(max_length=100)], Tag] | None = Field(
        default=None,
        description="What begins and ends a thought in its text; an empty first one: answers begin inside a thought.",
    )

    @model_validator(mode="after")
    def _check_tags(self) -> Self:
        if self.think_tags is not None and not all(tag.strip() or not tag for tag in self.think_tags):
            raise ValueError("think_tags must be two texts: what begins a thought, and what ends it")
        return self

    def over(self, usual: "ModelQuirks") -> "ModelQuirks":
        """These quirks, and the usual ones where these say nothing."""
        own = {name: value for name in self.model_fields_set if (value := getattr(self, name)) not in (None, (), {})}
        own["omit"] = tuple(dict.fromkeys((*usual.omit, *self.omit)))
        own["finish_reasons"] = {**usual.finish_reasons, **self.finish_reasons}
        return usual.model_copy(update=own)
