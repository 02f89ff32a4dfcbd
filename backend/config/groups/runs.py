"""Limits of answers and their streams."""

from typing import Literal, Self

from pydantic import Field, model_validator

from backend.config.fields import SettingsGroup

OnDisconnect = Literal["continue", "cancel"]


class RunSettings(SettingsGroup):
    """Limits of answers and their streams."""

    max_runs: int = Field(100, ge=1, description="Maximum number of live answers; one more request gets 429.")
    max_message_chars: int = Field(32_000, ge=1, le=1_000_000, description="Longest message, in characters.")
    max_answer_mb: float = Field(
        4.0,
        gt=0,
        le=100,
        description="Largest answer, in MB of text and reasoning. A longer one is ended and fails with `too_long`; "
        "what came is kept.",
    )
    checkpoint_seconds: float = Field(1.0, gt=0, le=60, description="Most seconds of an answer that a crash can lose.")
    checkpoint_events: int = Field(500, ge=1, le=900, description="An answer is also stored after so many new events.")
    log_tail_events: int = Field(5000, ge=100, description="Number of a live run's events that are kept in memory.")
    log_tail_mb: float = Field(8.0, gt=0, description="Megabytes of a live run's events that are kept in memory.")
    send_window_ms: float = Field(
        20.0,
        ge=0,
        le=1000,
        description="Milliseconds for which a busy server holds text back, to send it together. "
        "An idle server sends text at once.",
    )
    heartbeat_seconds: float = Field(15.0, gt=0, description="Seconds of silence after which a heartbeat is sent.")
    send_timeout: float = Field(30.0, gt=0, description="Seconds after which a client that reads nothing is dropped.")
    on_disconnect: OnDisconnect = Field(
        "continue",
        description="What happens to an answer that no client watches: `continue`, or `cancel` after DISCONNECT_GRACE.",
    )
    disconnect_grace: float = Field(
        30.0, ge=0, description="Seconds without a watcher after which `cancel` takes effect."
    )

    show_provider_errors: bool = Field(
        False,
        description="1 tells callers a provider's own error text, as `detail`: on one line, without keys. "
        "It may quote the prompt.",
    )

    @model_validator(mode="after")
    def _check_tail(self) -> Self:
        if self.log_tail_events < 2 * self.checkpoint_events:
            raise ValueError("LOG_TAIL_EVENTS: must be at least twice CHECKPOINT_EVENTS")
        return self
