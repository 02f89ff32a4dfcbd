"""MODELS_FILE (YAML or TOML): further providers, the abilities and prices of models, aliases and fallbacks.

Keys and addresses may also be in the environment, which takes precedence: `<NAME>_API_KEY` and `<NAME>_BASE_URL`. NAME
is the provider's name in capitals, with `_` for each character that is not a letter or digit.
"""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from backend.config.fields import Key, check_url, header_value
from backend.config.quirks import ModelQuirks

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_MAX_FILE_BYTES = 1_000_000
SECTIONS = ("providers", "aliases", "fallbacks")
_MAX_TOKENS = 1_000_000_000


class ProvidersError(ValueError):
    """The file can't be used. The message is one line: the place in the file, and what is allowed there."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Chain = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=10)]
"""Models (`provider/model`) in the order in which they are tried. A single model may be a plain string."""


class Price(_Strict):
    """US dollars for a million tokens. Without `cached`, cached input costs as much as other input."""

    input: Decimal = Field(ge=0, le=1_000_000)
    output: Decimal = Field(ge=0, le=1_000_000)
    cached: Decimal | None = Field(default=None, ge=0, le=1_000_000)


ModelKind = Literal[
    "chat", "completion", "embedding", "reranker", "audio", "image", "video", "moderation", "ocr", "other"
]
"""What a model is for."""


class ModelSpec(_Strict):
    """The abilities of a model. None means unknown; then the parameter is sent to the provider."""

    kind: ModelKind | None = Field(default=None, description="What the model is for. Only `chat` is used by itself.")
    context: int | None = Field(default=None, ge=1, le=_MAX_TOKENS, description="Tokens that it reads at most.")
    max_output: int | None = Field(default=None, ge=1, le=_MAX_TOKENS, description="Tokens that it writes at most.")
    vision: bool | None = None
    tools: bool | None = None
    reasoning: bool | None = None
    structured_output: bool | None = None
    temperature: bool | None = Field(default=None, description="Whether it takes temperature and top_p.")
    price: Price | None = None
    quirks: ModelQuirks | None = Field(default=None, description="How the model differs from the provider's others.")
    tokenizer: Path | None = Field(default=None, description="A tokenizer.json, seen from the folder of the file.")

    @field_validator("tokenizer")
    @classmethod
    def _resolve_tokenizer(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return _resolve(path, info)


def _resolve(path: Path | None, info: ValidationInfo) -> Path | None:
    """The path of a file, seen from the folder of MODELS_FILE. Raises ValueError if it is not there."""
    if path is None or info.context is None:
        return path
    file = info.context["folder"] / path
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    return file


def _check_header(value: SecretStr) -> SecretStr:
    return SecretStr(header_value(value.get_secret_value()))


def _check_header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("is no name of a header")
    return name


HeaderName = Annotated[str, AfterValidator(_check_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_check_header)]


class ProviderSpec(_Strict):
    """A new provider, or settings of a built-in provider."""

    kind: str | None = Field(default=None, description="The built-in provider that it is like; none: of its name.")
    base_url: str | None = None
    api_key: Key = None
    headers: dict[HeaderName, HeaderValue] = {}
    quirks: ModelQuirks = ModelQuirks()
    models: dict[str, ModelSpec] = {}
    file: Path | None = Field(
        default=None, description="For kind `local`: a GGUF file, seen from the folder of the file."
    )

    @field_validator("file")
    @classmethod
    def _resolve_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return _resolve(path, info)

    @model_validator(mode="after")
    def _check_base_url(self) -> Self:
        if self.base_url is not None:
            try:
                check_url(self.base_url)
            except ValueError as error:
                raise ValueError(f"base_url {error}") from None
        return self


class ProviderTable(_Strict):
    """The content of MODELS_FILE, and the keys and addresses of the environment by variable."""

    providers: dict[str, ProviderSpec] = {}
    aliases: dict[str, Chain] = {}
    fallbacks: dict[str, Chain] = {}
    environment: dict[str, str] = Field(default={}, exclude=True, repr=False)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in (*self.providers, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: names have lower-case letters, digits, `-`, `_` and `.`, at most 64")
        for section, chains in (("aliases", self.aliases), ("fallbacks", self.fallbacks)):
            for name, model in ((name, model) for name, chain in chains.items() for model in chain):
                if not all(model.partition("/")):
                    raise ValueError(f"{section}.{name}: {model!r} must be provider/model")
        for name in self.fallbacks:
            if not all(name.partition("/")):
                raise ValueError(f"fallbacks: {name!r} must be provider/model")
        return self

    def spec(self, name: str) -> ProviderSpec:
        """The entry of a provider; an empty entry if the file has none."""
        return self.providers.get(name) or ProviderSpec()

    def base_url(self, name: str) -> str | None:
        """The address of a provider; None if no setting has it."""
        return self.environment.get(variable(name, "BASE_URL")) or (self.spec(name).base_url or "").strip() or None

    def key(self, name: str) -> SecretStr | None:
        """The key of a provider; None if no setting has it."""
        key = self.environment.get(variable(name, "API_KEY"))
        return SecretStr(key) if key else self.spec(name).api_key


def variable(name: str, suffix: str) -> str:
    """The environment variable of a provider: MY_BOX_API_KEY for `my-box` and `API_KEY`."""
    return f"{re.sub(r'[^A-Z0-9]', '_', name.upper())}_{suffix}"


def load_providers(
    path: Path | None, environment: Mapping[str, str | None], *, is_config_file: bool = False
) -> ProviderTable:
    """The table of the file at `path`, with the variables of `environment`. `is_config_file`: other sections are of
    CONFIG_FILE. Raises ProvidersError."""
    named = ((name, (value or "").strip()) for name, value in environment.items())
    variables = {name: value for name, value in named if value and name.endswith(("_API_KEY", "_BASE_URL"))}
    if path is None:
        return ProviderTable(environment=variables)
    data = read_document(path)
    if not isinstance(data, dict) or "environment" in data:
        raise ProvidersError(f"{path}: must have the sections {', '.join(SECTIONS)}")
    # An empty section of YAML is None.
    sections = {
        name: section
        for name, section in cast(dict[str, Any], data).items()
        if section is not None and (name in SECTIONS or not is_config_file)
    }
    try:
        return ProviderTable.model_validate({**sections, "environment": variables}, context={"folder": path.parent})
    except ValidationError as error:
        raise ProvidersError(f"{path}: {_first_problem(error)}") from None


def read_document(path: Path) -> Any:
    """The content of a YAML or TOML file. Raises ProvidersError."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ProvidersError(f"{path}: has more than {_MAX_FILE_BYTES // 1_000_000} MB")
        if path.suffix == ".toml":
            return tomllib.loads(path.read_text(encoding="utf-8"))
        import yaml

        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ProvidersError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise ProvidersError(f"{path}: can't be read ({error.strerror})") from None
    except ProvidersError:
        raise
    except tomllib.TOMLDecodeError as error:
        raise ProvidersError(f"{path}: is no TOML: {error}") from None
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark is not None else ""
        raise ProvidersError(f"{path}: is no YAML{place}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(p) for p in problem["loc"])
    unknown = problem["type"] == "extra_forbidden"
    text = "is unknown" if unknown else problem["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
