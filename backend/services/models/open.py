"""Opens the models: their catalog, the choice between them, and their prices."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from backend.chains.calling.fallback import Health
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ProviderTable
from backend.config.settings import SettingsError
from backend.errors import Invalid
from backend.kit.network.network import Network
from backend.services.lifecycle import Readiness
from backend.services.models.catalog import BUILT_IN, ModelCatalog
from backend.services.models.choose import ModelChooser
from backend.services.models.pricing import Pricing

log = structlog.get_logger("streamforge")


@dataclass(frozen=True, slots=True)
class Models:
    """The language models of this server."""

    catalog: ModelCatalog
    chooser: ModelChooser
    pricing: Pricing
    health: Health


@asynccontextmanager
async def opened(
    settings: ModelSettings, providers: ProviderTable, network: Network, readiness: Readiness
) -> AsyncGenerator[Models]:
    """The models, until their connections are closed. The default model is found while the server gets ready.

    Raises ValueError if MODELS_FILE names a model that can't exist; `check_models` explains it.
    """
    catalog = ModelCatalog(settings, providers, network)

    async def load() -> None:
        await catalog.open()
        _announce(catalog)
        await asyncio.to_thread(catalog.warm)

    readiness.add(load)
    try:
        yield Models(
            catalog, ModelChooser(settings, providers, catalog), Pricing(catalog), Health(settings.cooldown_seconds)
        )
    finally:
        await catalog.close()


def check_models(
    settings: ModelSettings, providers: ProviderTable, network: Network, summary_model: str | None
) -> None:
    """Raises SettingsError if MODELS_FILE, LLM_MODEL, TASK_MODEL or SUMMARY_MODEL names a model that can't be used.
    Calls no provider."""
    try:
        catalog = ModelCatalog(settings, providers, network)
    except Invalid as error:
        raise SettingsError(f"MODELS_FILE: {error.text(with_advice=True).removeprefix('model: ')}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    named = {"LLM_MODEL": settings.llm_model, "TASK_MODEL": settings.task_model, "SUMMARY_MODEL": summary_model}
    for variable, model in named.items():
        try:
            if model is not None:
                catalog.check(model)
        except Invalid as error:
            raise SettingsError(f"{variable}: {error.text(with_advice=True).removeprefix('model: ')}") from None


def _announce(catalog: ModelCatalog) -> None:
    """Log which model answers, and what to do for a better one."""
    default = catalog.default
    is_found = default.name == BUILT_IN and not catalog.is_default_set
    log.info("chat_model", model=default.name, why="built in, quotes the documents" if is_found else default.reason)
    if is_found and (problems := catalog.problems_of_set_up()):
        log.warning("no_language_model", why=problems, look="GET /models says more; it is looked for at requests")
    if default.name == BUILT_IN:
        log.info("for_more", models="set OPENAI_API_KEY or OPENAI_BASE_URL, or start Ollama")
        log.info("for_more", settings=".env.example lists them; copy it to .env")
        log.info("for_more", people="API_KEYS and HOST let others in: docs/run-it.md")
