"""CONFIG_FILE (YAML or TOML): any settings in one file. The environment and `.env` take precedence over it.

A setting has the name of its variable, in capitals or not. Settings may stand in sections with the names of the groups
of docs/configuration.md. The sections of MODELS_FILE may be in the same file.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from backend.config.models_file import SECTIONS, ProvidersError, read_document

_OF_PROVIDERS = ("_API_KEY", "_BASE_URL")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of the file: variables with their values as the environment has them, and whether it has sections of
    MODELS_FILE, too."""

    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    has_models: bool = False


def read_config_file(path: Path, groups: Mapping[str, Collection[str]]) -> ConfigFile:
    """The content of the file. `groups` has the names of the settings, in lower case, by group.

    Raises ProvidersError: the file can't be read, or it has a name that is no setting.
    """
    data = read_document(path)
    if not isinstance(data, dict):
        raise ProvidersError(f"{path}: must have settings, such as port: 8001")
    sections = cast(dict[Any, Any], data)
    known = {name for names in groups.values() for name in names}
    variables: dict[str, str] = {}
    for name, value in _flattened(path, sections, groups):
        if name not in known and not name.upper().endswith(_OF_PROVIDERS):
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else " .env.example lists all settings."
            raise ProvidersError(f"{path}: {name} is no setting.{hint}")
        if name.upper() in variables:
            raise ProvidersError(f"{path}: {name} occurs twice")
        if value is not None:
            variables[name.upper()] = _as_variable(path, name, value)
    return ConfigFile(variables, any(name in sections for name in SECTIONS))


def _flattened(
    path: Path, sections: Mapping[Any, Any], groups: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, Any]]:
    """The settings of the file, with names in lower case."""
    for name, value in sections.items():
        if name in SECTIONS:
            continue
        if name not in groups:
            yield str(name).lower(), value
        elif isinstance(value, dict):
            for inner, inner_value in cast(dict[Any, Any], value).items():
                yield str(inner).lower(), inner_value
        elif value is not None:
            raise ProvidersError(f"{path}: {name} must have settings, such as those of its group in .env.example")


def _as_variable(path: Path, name: str, value: object) -> str:
    """A value as the environment would have it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list):
        items = cast(list[object], value)
        if all(isinstance(item, str | int | float) for item in items):
            return ",".join(map(str, items))
    raise ProvidersError(f"{path}: {name} must be a text, a number, true, false, or a list of these")
