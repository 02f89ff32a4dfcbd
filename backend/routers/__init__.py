"""The HTTP API. `ROUTERS` lists its modules: a new module needs one line here.

A module has `router`. It may have `TAG` (its group in Swagger UI), `MAX_BODY` or `max_body(settings)` (maximum bytes of
a request), `FILE_PATHS` (paths whose bodies are files) and `SCHEMAS` (models that only its streams contain).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from backend.config.settings import Settings
from backend.routers.edge.body_limits import JSON_BODY


@dataclass(frozen=True, slots=True)
class RouterModule:
    """A module of endpoints. It is imported, mounted and described in OpenAPI only if `is_on` says so."""

    name: str
    is_on: Callable[[Settings], bool] = lambda settings: True


# The most used modules come first, because routes are tried one after the other.
ROUTERS = (
    RouterModule("chat"),
    RouterModule("messages"),
    RouterModule("documents.documents"),
    RouterModule("documents.uploads"),
    RouterModule("sessions.files"),
    RouterModule("runs"),
    RouterModule("sessions.sessions"),
    RouterModule("images"),
    RouterModule("models"),
    RouterModule("prompts"),
    RouterModule("usage"),
    RouterModule("me"),
    RouterModule("system"),
    RouterModule("metrics"),
    RouterModule("search"),
    RouterModule("collections"),
)


def modules_of(settings: Settings) -> Iterator[ModuleType]:
    """The modules that these settings turn on, imported, in the order of ROUTERS."""
    for entry in ROUTERS:
        if entry.is_on(settings):
            yield import_module(f"backend.routers.{entry.name}")


def max_body_of(module: ModuleType, settings: Settings) -> int:
    """The maximum number of bytes of a request to the module's endpoints."""
    if hasattr(module, "max_body"):
        return module.max_body(settings)
    return getattr(module, "MAX_BODY", JSON_BODY)
