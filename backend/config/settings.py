"""Settings: groups in code, plain names in the environment and in `.env` (environment first).

Each field's environment variable is its name in capitals; its description is what `.env.example` and
docs/configuration.md say. A wrong value raises `SettingsError`, whose text is one line that names the variable.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.config.budgets import EVERYBODY, parse_budgets
from backend.config.callers import MIN_KEY_LENGTH, check_callers, parse_hosts, parse_keys
from backend.config.providers import ProvidersError, ProviderTable, load_providers

OnDisconnect = Literal["continue", "cancel"]


class SettingsError(ValueError):
    """A setting is wrong. The message is one line: the variable, what is allowed."""


def _split(value: object) -> object:
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names, comma-separated."""


class _Group(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )


class ServerSettings(_Group):
    """Where the server listens and who may call it."""

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, API_KEYS must be set.")
    port: int = Field(8001, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    reload: bool = Field(False, description="1 restarts the server when its code changes (development).")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("http://localhost:3000", "http://localhost:5173"),
        description="Web origins whose pages may call, comma-separated. `*` is refused: name them.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="`name:key,name:key`, at least 24 characters a key. Each name has its own sessions and documents. "
        "Unset: only this machine may call, as `local`.",
    )
    shutdown_grace: float = Field(
        5.0, ge=0, le=60, description="Seconds that live answers get to finish when the server is asked to stop."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(o.strip().rstrip("/") for o in value.split(",") if o.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise ValueError("must be origins like http://localhost:3000, comma-separated; `*` is refused")
        return value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value)
        return value

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        if not self.loopback and self.api_keys is None:
            raise ValueError(
                f"HOST={self.host} can be reached from other machines, so API_KEYS must be set "
                f"(name:key, at least {MIN_KEY_LENGTH} characters a key); or use HOST=127.0.0.1"
            )
        return self


class StorageSettings(_Group):
    """Where data lies."""

    data_dir: Path = Field(Path("data"), description="Folder of everything stored: database, vectors, files.")
    database_url: str | None = Field(
        None, description="`sqlite:///path`; unset: streamforge.db in DATA_DIR. Other databases are not supported yet."
    )
    chroma_url: str | None = Field(None, description="Not supported yet: vectors lie in DATA_DIR. Leave it unset.")
    event_retention_hours: float = Field(
        24.0, gt=0, description="How long a finished run's events are kept verbatim; later it replays as a snapshot."
    )

    @field_validator("database_url")
    @classmethod
    def _sqlite(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith("sqlite:///") or value[10:] in ("", ":memory:")):
            raise ValueError("must be sqlite:///path (other databases are not supported yet), or unset")
        return value

    @field_validator("chroma_url")
    @classmethod
    def _embedded(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("must be unset: a Chroma server is not supported yet, vectors lie in DATA_DIR")
        return value

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url is None:
            return self.data_dir / "streamforge.db"
        return Path(self.database_url.removeprefix("sqlite:///"))


class LogSettings(_Group):
    """What the server says about itself."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="For people, or one JSON object a line.")
    log_provider_text: bool = Field(False, description="1 logs what providers say when they refuse; it may quote.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class ModelSettings(_Group):
    """Which model answers."""

    llm_model: str | None = Field(
        None,
        description="Default model, `provider/model` or an alias of MODELS_FILE. Unset: the first provider that is set "
        "up (openai, anthropic, google, cohere, those of MODELS_FILE), else a local Ollama, else extractive/quotes, "
        "which answers by quoting the documents.",
    )
    llm_temperature: float = Field(0.7, ge=0, le=2, description="Default temperature.")
    llm_max_tokens: int = Field(2000, ge=1, le=1_000_000, description="Default limit of an answer, in tokens.")
    llm_history_tokens: int = Field(
        6000, ge=0, description="Tokens of earlier messages that go to the model; the oldest are left out first."
    )
    models_file: Path | None = Field(
        None,
        description="YAML or TOML file of further providers, what models can and cost, aliases and fallbacks; see "
        "docs/models.md.",
    )
    attempt_timeout: float = Field(
        30.0, gt=0, description="Seconds to wait for a model's first token where another one would take over."
    )
    cooldown_seconds: float = Field(
        30.0, ge=0, description="Seconds for which a model that failed is passed over, if there is another one."
    )
    openai_api_key: SecretStr | None = Field(None, description="Key of OpenAI or of a server that speaks its API.")
    openai_base_url: str | None = Field(
        None, description="Base URL of an OpenAI-compatible server, e.g. http://localhost:8080/v1."
    )
    ollama_base_url: str = Field("http://127.0.0.1:11434", description="Where Ollama listens.")
    stream_delay: float = Field(0.1, ge=0, le=60, description="Seconds between words of the simulated model.")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to wait for a connection to a provider.")
    first_token_timeout: float = Field(120.0, gt=0, description="Seconds to wait for a provider's first token.")
    idle_timeout: float = Field(60.0, gt=0, description="Seconds of silence mid-answer after which it has stalled.")
    total_timeout: float = Field(900.0, gt=0, description="Seconds that one answer of a provider may take in all.")
    retry_seconds: float = Field(
        10.0,
        ge=0,
        description="Seconds for trying again when a provider refuses for now, before its first token; 0 never does.",
    )

    @field_validator("openai_base_url", "ollama_base_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL")
        return value

    @field_validator("llm_model")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        # Without a slash it is an alias: see `load`.
        if value is not None and "/" in value and not all(value.partition("/")):
            raise ValueError("must be provider/model, e.g. openai/gpt-5-mini or ollama/llama3.2")
        return value


class KnowledgeSettings(_Group):
    """How documents become searchable."""

    enable_rag: bool = Field(True, description="0 answers without the documents.")
    embedding_model: str = Field(
        "minilm/all-MiniLM-L6-v2",
        description="`provider/model`: minilm (built in), openai (e.g. openai/text-embedding-3-small), ollama.",
    )
    chunk_size: int = Field(500, ge=100, le=8000, description="Characters of what is embedded and ranked as one.")
    passage_size: int = Field(
        1000, ge=100, le=20_000, description="Most characters of a passage: a chunk's best sentences and those around."
    )
    top_k: int = Field(6, ge=1, le=50, description="Passages handed to the model.")
    relevance_floor: float = Field(
        0.5,
        ge=0,
        le=1.5,
        description="Least relevance of a passage: closeness in meaning + half the share of the question's telling "
        "words.",
    )
    reranker: str | None = Field(
        None,
        description="A model that reads the question with each of the best candidates and orders them: the URL of an "
        "API like Cohere's (e.g. http://localhost:8080/v1), `voyage:` or `tei:` and a URL, or `onnx:` and a folder. "
        "Unset: none.",
    )
    reranker_model: str | None = Field(
        None, description="The model that the reranker's API is to use, if it has several."
    )
    reranker_api_key: SecretStr | None = Field(None, description="Key of the reranker's API.")
    reranker_timeout: float = Field(
        2.0, gt=0, le=60, description="Seconds that a search waits for the reranker; then it goes on without."
    )
    rerank_candidates: int = Field(30, ge=2, le=100, description="Candidates that the reranker reads.")
    allowed_link_hosts: Names = Field(
        (),
        description="`host` or `host:port`, comma-separated: an answer from documents may link to them and show their "
        "images, although no passage holds the URL.",
    )
    max_upload_mb: int = Field(50, ge=1, le=4096, description="Largest file, in MB.")
    max_upload_files: int = Field(20, ge=1, le=1000, description="Most files of one upload.")
    parse_timeout: float = Field(120.0, gt=0, description="Seconds that reading one file may take.")
    url_fetch: bool = Field(True, description="0 refuses POST /documents/url.")
    url_allowed_hosts: Names = Field(
        (),
        description="`host` or `host:port`, comma-separated: fetched from although the address is private or the port "
        "is not 80 or 443.",
    )
    url_timeout: float = Field(60.0, gt=0, le=3600, description="Seconds that fetching one URL may take.")

    @field_validator("embedding_model")
    @classmethod
    def _named(cls, value: str) -> str:
        if not all(value.partition("/")):
            raise ValueError("must be provider/model, e.g. minilm/all-MiniLM-L6-v2")
        return value

    @field_validator("url_allowed_hosts", "allowed_link_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_hosts(value)
        return value


class UsageSettings(_Group):
    """What owners may spend on models, and who sees what they do."""

    budgets: Names = Field(
        (),
        description="`owner=amount/period`, comma-separated, e.g. `alice=5/day,*=20/month`: US dollars that the "
        "owner's answers may cost in a day, week or month (UTC); `*` is everybody else, each on their own.",
    )
    usage_admins: Names = Field((), description="Owners who may see everybody's usage, comma-separated.")

    @field_validator("budgets")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_budgets(value)
        return value


class TelemetrySettings(_Group):
    """What others may measure."""

    metrics: bool = Field(False, description="1 gives Prometheus its figures at GET /metrics.")
    otel: bool | None = Field(
        None,
        description="1 sends traces with OpenTelemetry, 0 never does. Unset: where OTEL_EXPORTER_OTLP_ENDPOINT is set. "
        "OpenTelemetry's own variables say the rest; they are read from the environment alone, not from .env.",
    )


class RunSettings(_Group):
    """Bounds of the stream."""

    max_runs: int = Field(100, ge=1, description="Answers that may be under way at once; then 429.")
    max_message_chars: int = Field(32_000, ge=1, le=1_000_000, description="Longest message, in characters.")
    checkpoint_seconds: float = Field(1.0, gt=0, le=60, description="At most so much of an answer is lost by a crash.")
    checkpoint_events: int = Field(500, ge=1, le=900, description="... or so many events, whichever comes first.")
    log_tail_events: int = Field(5000, ge=100, description="Events of a live run kept in memory.")
    log_tail_mb: float = Field(8.0, gt=0, description="Megabytes of a live run's events kept in memory.")
    send_window_ms: float = Field(
        20.0, ge=0, le=1000, description="Milliseconds for which a busy server holds text back, to send it together."
    )
    heartbeat_seconds: float = Field(15.0, gt=0, description="Silence after which a heartbeat is sent.")
    send_timeout: float = Field(30.0, gt=0, description="Seconds after which a reader that takes nothing is dropped.")
    on_disconnect: OnDisconnect = Field(
        "continue",
        description="What becomes of an answer that nobody watches: `continue`, or `cancel` after DISCONNECT_GRACE.",
    )
    disconnect_grace: float = Field(
        30.0, ge=0, description="Seconds without a watcher after which such an answer is cancelled."
    )

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.log_tail_events < 2 * self.checkpoint_events:
            raise ValueError("LOG_TAIL_EVENTS: must be at least twice CHECKPOINT_EVENTS")
        return self


class ConversationSettings(_Group):
    """What becomes of a conversation as it goes on."""

    auto_title: bool = Field(True, description="0 leaves a session's first title as it is: its first message.")
    summaries: bool = Field(
        True, description="0 leaves out the oldest messages of a conversation that is longer than LLM_HISTORY_TOKENS."
    )
    summary_model: str | None = Field(
        None,
        description="Model that sums up older messages, `provider/model` or alias. Unset: the one that answers.",
    )
    summary_timeout: float = Field(20.0, gt=0, description="Seconds that an answer waits for a summary at most.")


GROUPS: dict[str, type[_Group]] = {
    "server": ServerSettings,
    "storage": StorageSettings,
    "log": LogSettings,
    "models": ModelSettings,
    "knowledge": KnowledgeSettings,
    "usage": UsageSettings,
    "telemetry": TelemetrySettings,
    "runs": RunSettings,
    "conversations": ConversationSettings,
}
"""Every group by its name in `Settings`."""


class Settings(BaseModel):
    """All groups. `load()` reads them from the environment and `.env`."""

    model_config = {"frozen": True}

    server: ServerSettings
    storage: StorageSettings
    log: LogSettings
    models: ModelSettings
    knowledge: KnowledgeSettings
    usage: UsageSettings
    telemetry: TelemetrySettings
    runs: RunSettings
    conversations: ConversationSettings
    providers: ProviderTable = ProviderTable()

    @classmethod
    def load(cls, env_file: Path | None = Path(".env"), **overrides: Any) -> Self:
        """Settings from the environment over `env_file`; `overrides` are variables in lower case, for tests.

        Raises SettingsError on a wrong value.
        """
        groups: dict[str, _Group] = {}
        for name, group in GROUPS.items():
            mine = {k: v for k, v in overrides.items() if k in group.model_fields}
            try:
                groups[name] = group(_env_file=env_file, **mine)  # pyright: ignore[reportCallIssue] undeclared
            except ValidationError as error:
                raise SettingsError(_one_line(error)) from None
            except UnicodeDecodeError:
                raise SettingsError(f"{env_file}: is not UTF-8 text") from None
        try:
            models = cast(ModelSettings, groups["models"])
            table = load_providers(models.models_file, _environment(env_file, models, overrides))
        except ProvidersError as error:
            raise SettingsError(f"MODELS_FILE: {error}") from None
        if models.llm_model is not None and "/" not in models.llm_model and models.llm_model not in table.aliases:
            raise SettingsError("LLM_MODEL: must be provider/model, e.g. openai/gpt-5-mini, or an alias of MODELS_FILE")
        keys, usage = cast(ServerSettings, groups["server"]).api_keys, cast(UsageSettings, groups["usage"])
        budgeted = parse_budgets(usage.budgets).keys() - {EVERYBODY}
        try:
            check_callers(keys, BUDGETS=budgeted, USAGE_ADMINS=usage.usage_admins)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return cls.model_validate({**groups, "providers": table})


def _environment(env_file: Path | None, models: ModelSettings, overrides: Mapping[str, Any]) -> dict[str, str | None]:
    """The environment over `env_file`, and what the settings have read of it or were given."""
    key = models.openai_api_key
    return {
        **(dotenv_values(env_file) if env_file is not None else {}),
        **os.environ,
        **{name.upper(): said for name, said in overrides.items() if isinstance(said, str)},
        "OPENAI_API_KEY": key.get_secret_value() if key is not None else None,
        "OPENAI_BASE_URL": models.openai_base_url,
        "OLLAMA_BASE_URL": models.ollama_base_url,
    }


def _one_line(error: ValidationError) -> str:
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(p) for p in problem["loc"]).upper()
        said = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{name}: {said[0].lower()}{said[1:]}" if name else said)
    return "; ".join(problems)
