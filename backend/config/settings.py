"""All settings, read from the environment and from `.env`; the environment takes precedence.

Each capability has its group in `groups/`. The environment variable of a field is its name in capitals. A wrong value
raises `SettingsError`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError

from backend.config.budgets import EVERYBODY, parse_budgets
from backend.config.fields import SettingsGroup
from backend.config.groups.accounts import check_callers
from backend.config.groups.conversations import ConversationSettings
from backend.config.groups.library import LibrarySettings
from backend.config.groups.logs import LogSettings
from backend.config.groups.models import ModelSettings
from backend.config.groups.network import NetworkSettings
from backend.config.groups.runs import RunSettings
from backend.config.groups.server import ServerSettings
from backend.config.groups.storage import StorageSettings
from backend.config.groups.telemetry import TelemetrySettings
from backend.config.groups.usage import UsageSettings
from backend.config.models_file import ProvidersError, ProviderTable, load_providers


class SettingsError(ValueError):
    """A setting is wrong. The message is one line: the variable and the allowed values."""


class Groups(BaseModel):
    """Every group under the name of its capability. A new group is one line here."""

    model_config = {"frozen": True}

    server: ServerSettings
    storage: StorageSettings
    logs: LogSettings
    models: ModelSettings
    network: NetworkSettings
    library: LibrarySettings
    usage: UsageSettings
    telemetry: TelemetrySettings
    runs: RunSettings
    conversations: ConversationSettings


GROUPS = cast("dict[str, type[SettingsGroup]]", {name: field.annotation for name, field in Groups.model_fields.items()})
"""The class of each group, by its name."""


class Settings(Groups):
    """All settings, and the providers of MODELS_FILE."""

    providers: ProviderTable = ProviderTable()

    @classmethod
    def load(cls, env_file: Path | None = Path(".env"), **overrides: Any) -> Self:
        """The settings of the environment and of `env_file`; the environment takes precedence.

        `overrides` take precedence over both: variables in lower case, for tests. Raises SettingsError if a value is
        wrong.
        """
        groups = Groups.model_validate(
            {name: _load_group(group, env_file, overrides) for name, group in GROUPS.items()}
        )
        providers = _load_providers(groups.models, env_file, overrides)
        _check_default_model(groups.models, providers)
        _check_owners(groups)
        return cls.model_validate({**dict(groups), "providers": providers})


def _load_group(group: type[SettingsGroup], env_file: Path | None, overrides: Mapping[str, Any]) -> SettingsGroup:
    values = {name: value for name, value in overrides.items() if name in group.model_fields}
    try:
        return group(_env_file=env_file, **values)  # pyright: ignore[reportCallIssue] undeclared
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file}: is not UTF-8 text") from None


def _load_providers(models: ModelSettings, env_file: Path | None, overrides: Mapping[str, Any]) -> ProviderTable:
    try:
        return load_providers(models.models_file, _environment(env_file, models, overrides))
    except ProvidersError as error:
        raise SettingsError(f"MODELS_FILE: {error}") from None


def _environment(env_file: Path | None, models: ModelSettings, overrides: Mapping[str, Any]) -> dict[str, str | None]:
    """The variables of the environment over those of `env_file`. The fields of `models` win over both."""
    key = models.openai_api_key
    return {
        **(dotenv_values(env_file) if env_file is not None else {}),
        **os.environ,
        **{name.upper(): value for name, value in overrides.items() if isinstance(value, str)},
        "OPENAI_API_KEY": key.get_secret_value() if key is not None else None,
        "OPENAI_BASE_URL": models.openai_base_url,
        "OLLAMA_BASE_URL": models.ollama_base_url,
    }


def _check_default_model(models: ModelSettings, providers: ProviderTable) -> None:
    if models.llm_model is not None and "/" not in models.llm_model and models.llm_model not in providers.aliases:
        raise SettingsError("LLM_MODEL: must be provider/model, e.g. openai/gpt-5-mini, or an alias of MODELS_FILE")


def _check_owners(groups: Groups) -> None:
    """Raises SettingsError if a setting names an owner without a key."""
    owners_with_budget = parse_budgets(groups.usage.budgets).keys() - {EVERYBODY}
    try:
        check_callers(groups.server.api_keys, BUDGETS=owners_with_budget, USAGE_ADMINS=groups.usage.usage_admins)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _one_line(error: ValidationError) -> str:
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(p) for p in problem["loc"]).upper()
        text = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{name}: {text[0].lower()}{text[1:]}" if name else text)
    return "; ".join(problems)
