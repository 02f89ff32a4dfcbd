"""Titles and summaries of conversations."""

from pydantic import Field

from backend.config.fields import SettingsGroup


class ConversationSettings(SettingsGroup):
    """Titles and summaries of conversations."""

    auto_title: bool = Field(True, description="0 keeps a session's first title: its first message.")
    summaries: bool = Field(
        True, description="0 turns summaries off: the oldest messages beyond LLM_HISTORY_TOKENS are left out."
    )
    summary_model: str | None = Field(
        None,
        description="Model that summarises older messages, `provider/model` or alias. Unset: TASK_MODEL, or "
        "the one that answers.",
    )
    summary_timeout: float = Field(20.0, gt=0, description="Maximum seconds that an answer waits for a summary.")
    session_retention_days: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Days without a change after which a session is deleted, with its messages and runs, unless it is "
        "pinned. Unset: never.",
    )
