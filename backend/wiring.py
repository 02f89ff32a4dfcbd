"""The order in which capabilities open, and what each of them gets. They close in the opposite order."""

import gc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from backend.config.settings import Settings
from backend.routers.edge.services import Services
from backend.services.answers.open import open_answers
from backend.services.conversations import open as conversations_
from backend.services.foundation import Core
from backend.services.library import open as library_
from backend.services.lifecycle import Draining, Load, Readiness
from backend.services.models import open as models_
from backend.services.prompts import open as prompts_
from backend.services.runs import open as runs_
from backend.services.telemetry import open as telemetry_
from backend.services.telemetry.telemetry import Telemetry
from backend.services.upkeep import open as upkeep_
from backend.services.usage import open as usage_
from backend.services.web import open as web_
from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirLock

log = structlog.get_logger("streamforge")

_GC_THRESHOLDS = (50_000, 20, 50)


@asynccontextmanager
async def opened(settings: Settings, lock: DataDirLock | None, telemetry: Telemetry) -> AsyncGenerator[Services]:
    """The services. What answers need is loaded in the background, after the port is open.

    `lock` is the lock of DATA_DIR, if the caller holds it; then this process is the server's own. If it is None, the
    lock is taken here.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        own_lock = lock or DataDirLock(settings.storage.data_dir)
        stack.callback(own_lock.release)
        await enter(telemetry_.opened(telemetry))
        database = Database(settings.storage.database_path)
        stack.push_async_callback(database.close)
        network, shows_advice = settings.network.network(), settings.server.api_keys is None
        core = Core(database, settings.storage.data_dir, telemetry, Draining(), Readiness(), network, shows_advice)
        models = await enter(models_.opened(settings.models, settings.providers, network, core.readiness))
        usage = await enter(usage_.opened(settings, core, models.pricing))
        runs = await enter(runs_.opened(settings.runs, settings.storage, core, models.pricing.charge))
        conversations = await enter(
            conversations_.opened(
                settings.conversations, settings.models, core, runs.hub, models, usage.metering.outside_run
            )
        )
        library = await enter(library_.opened(settings.library, settings.models, core, usage.metering.embedding))
        restorer = library.restorer
        await enter(upkeep_.opened(settings, core, own_lock, lambda: restorer.is_open, restorer.repair))
        prompts = await enter(prompts_.opened(core))
        fetcher = await enter(web_.opened(settings.library, core))
        answers = open_answers(settings, runs, models, conversations, library, prompts, usage.budgets)
        core.readiness.add(_last_load(settings, is_own_process=lock is not None))
        core.readiness.open()
        stack.push_async_callback(core.readiness.close)
        # This closes first, because live runs use everything that closes later.
        stack.push_async_callback(core.draining.drain, settings.server.shutdown_grace)
        yield Services(settings, core, answers, runs, conversations, library, prompts, models, usage, fetcher)


def check(settings: Settings) -> None:
    """Raise SettingsError if a setting names a model or a package that isn't there. Sends no request."""
    library_.check(settings)
    network = settings.network.network()
    models_.check_models(settings.models, settings.providers, network, settings.conversations.summary_model)
    telemetry_.check_telemetry(settings.telemetry)


def _last_load(settings: Settings, *, is_own_process: bool) -> Load:
    """The load that runs last: it sets up garbage collection and logs that the server is ready."""

    async def load() -> None:
        if is_own_process:
            # The caller holds the lock, so this is our own process: GC settings may be changed. What is loaded stays;
            # a collection that looks through all of it would stop every stream for 0.25 s.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_GC_THRESHOLDS)
        log.info("ready")

    return load
