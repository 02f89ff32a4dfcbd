"""All settings, read from the environment, else from `.env`, else from CONFIG_FILE.

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
from backend.config.config_file import ConfigFile, read_config_file
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
        """The settings of the environment, of `env_file` and of CONFIG_FILE, in this order of precedence.

        `overrides` take precedence over all: variables in lower case, for tests. Raises SettingsError if a value is
        wrong.
        """
        set_variables = _set_variables(env_file, overrides)
        config_file = _read_config_file(set_variables)
        # Values that a group is created with win over its environment, so only those are given that nothing else sets.
        values = {n.lower(): v for n, v in config_file.variables.items() if n not in set_variables} | overrides
        groups = Groups.model_validate({name: _load_group(group, env_file, values) for name, group in GROUPS.items()})
        providers = _load_providers(groups, config_file, set_variables)
        _check_default_model(groups.models, providers)
        _check_owners(groups)
        return cls.model_validate({**dict(groups), "providers": providers})


def _load_group(group: type[SettingsGroup], env_file: Path | None, overrides: Mapping[str, Any]) -> SettingsGroup:
    values = {name: value for name, value in overrides.items() if name in group.model_fields}
    try:
        return group(_env_file=env_file, **values)  # pyright: ignore[reportCallIssue] undeclared
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _set_variables(env_file: Path | None, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The variables of the environment over those of `env_file`, and the texts of `overrides` over both. Empty ones
    count as unset."""
    try:
        of_file = dotenv_values(env_file) if env_file is not None else {}
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file}: is not UTF-8 text") from None
    texts = {name: str(value) for name, value in overrides.items() if isinstance(value, str | Path)}
    layers = (of_file, os.environ, texts)
    return {name.upper(): value for layer in layers for name, value in layer.items() if value}


def _read_config_file(set_variables: Mapping[str, str]) -> ConfigFile:
    path = set_variables.get("CONFIG_FILE")
    if path is None:
        return ConfigFile()
    try:
        return read_config_file(Path(path), {name: group.model_fields for name, group in GROUPS.items()})
    except ProvidersError as error:
        raise SettingsError(f"CONFIG_FILE: {error}") from None


def _load_providers(groups: Groups, config_file: ConfigFile, set_variables: Mapping[str, str]) -> ProviderTable:
    """The providers of MODELS_FILE, or else of CONFIG_FILE. The fields of the group `models` win over all variables."""
    models, key = groups.models, groups.models.openai_api_key
    environment = {
        **config_file.variables,
        **set_variables,
        "OPENAI_API_KEY": key.get_secret_value() if key is not None else None,
        "OPENAI_BASE_URL": models.openai_base_url,
        "OLLAMA_BASE_URL": models.ollama_base_url,
    }
    if models.models_file is not None and config_file.has_models:
        raise SettingsError("MODELS_FILE: CONFIG_FILE has its sections already. Use one of the two.")
    is_config_file = models.models_file is None and config_file.has_models
    path = groups.server.config_file if is_config_file else models.models_file
    try:
        return load_providers(path, environment, is_config_file=is_config_file)
    except ProvidersError as error:
        raise SettingsError(f"{'CONFIG_FILE' if is_config_file else 'MODELS_FILE'}: {error}") from None


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
