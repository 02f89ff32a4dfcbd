"""Which models answer, with which parameters and time limits."""

from pathlib import Path

from pydantic import Field, field_validator

from backend.config.fields import HttpUrl, Key, SettingsGroup


class ModelSettings(SettingsGroup):
    """Which model answers."""

    llm_model: str | None = Field(
        None,
        description="Default model: `provider/model` or an alias of MODELS_FILE. Unset: the first provider that is "
        "set up (openai, anthropic, google, cohere, then those of MODELS_FILE), else a local Ollama, "
        "else extractive/quotes, which answers by quoting the documents.",
    )
    task_model: str | None = Field(
        None,
        description="Model that writes titles, summaries and search queries, `provider/model` or alias: a small, quick "
        "one. Unset: the one that answers.",
    )
    llm_temperature: float = Field(0.7, ge=0, le=2, description="Default temperature.")
    llm_max_tokens: int = Field(2000, ge=1, le=1_000_000, description="Default limit of an answer, in tokens.")
    llm_history_tokens: int = Field(
        6000, ge=0, description="Tokens of earlier messages that the model is given; the oldest are left out first."
    )
    models_file: Path | None = Field(
        None,
        description="YAML or TOML file with more providers, the abilities and prices of models, aliases and "
        "fallbacks; see docs/models.md.",
    )
    attempt_timeout: float = Field(
        30.0, gt=0, description="Seconds to wait for a model's first token if another model can take over."
    )
    cooldown_seconds: float = Field(
        30.0, ge=0, description="Seconds for which a model that failed is skipped, if there is another one."
    )
    openai_api_key: Key = Field(None, description="Key of OpenAI, or of a server that speaks its API.")
    openai_base_url: HttpUrl | None = Field(
        None, description="Base URL of an OpenAI-compatible server, e.g. http://localhost:8080/v1."
    )
    ollama_base_url: HttpUrl = Field("http://127.0.0.1:11434", description="URL of Ollama.")
    ollama_num_ctx: int | None = Field(
        None,
        ge=256,
        le=10_000_000,
        description="Context in tokens that Ollama is asked for. Unset: as much as each prompt and its answer need, "
        "within what the model can read.",
    )
    local_model: Path | None = Field(
        None,
        description="A GGUF file that this server runs itself, as local/<name of the file>. Unset: the tiny model of "
        "backend/requirements-local.txt, if it is installed.",
    )
    local_context: int = Field(
        8192, ge=512, le=1_000_000, description="Context of the local model for each answer, in tokens."
    )
    local_slots: int = Field(1, ge=1, le=16, description="Answers that the local model writes at the same time.")
    local_threads: int | None = Field(
        None, ge=1, le=256, description="Threads of the local model. Unset: half of the processor's cores, at most 8."
    )
    local_memory_mb: int | None = Field(
        None,
        ge=256,
        description="Largest address space of the local model's process, in MB. Unset: twice the size of its file, "
        "and 3 GB. (Not on Windows and macOS.)",
    )
    stream_delay: float = Field(0.1, ge=0, le=60, description="Seconds between the words of the simulated model.")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to wait for a connection to a provider.")
    first_token_timeout: float = Field(
        120.0,
        gt=0,
        description="Seconds of silence to wait for a provider's first token; keep-alive bytes are no silence.",
    )
    idle_timeout: float = Field(
        60.0, gt=0, description="Seconds without a byte from the provider after which an unfinished answer fails."
    )
    total_timeout: float = Field(900.0, gt=0, description="Seconds that one answer of a provider may take in total.")
    retry_seconds: float = Field(
        10.0,
        ge=0,
        description="Seconds of retries if a provider fails temporarily before its first token; 0: no retries.",
    )

    @field_validator("llm_model", "task_model")
    @classmethod
    def _check_model(cls, value: str | None) -> str | None:
        # A name without a slash is an alias; `Settings.load` looks it up in MODELS_FILE.
        if value is not None and "/" in value and not all(value.partition("/")):
            raise ValueError("must be provider/model, e.g. openai/gpt-5-mini or ollama/llama3.2")
        return value
