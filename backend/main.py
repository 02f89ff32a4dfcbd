"""The command `python -m backend.main`, and `app` for other ASGI servers. `app.py` builds the application."""

import errno
import gc
import os
import socket
import sys

if __name__ == "__main__":
    # Imported modules never become garbage. Collecting while they load takes a tenth of the start.
    gc.disable()
    # structlog would import rich, for tracebacks that are not used here.
    sys.modules["rich"] = None  # pyright: ignore[reportArgumentType]

from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.config.groups.server import ServerSettings
from backend.config.groups.storage import StorageSettings
from backend.config.settings import Settings, SettingsError
from backend.routers.edge.listener import bound_sockets
from backend.server import CLOSE_SECONDS, Server
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from backend.storage.engine.preflight import StorageRefused, check_storage
from backend.wiring import check

log = structlog.get_logger("streamforge")


def serve(settings: Settings) -> int:
    """The exit code of the process, once a signal has stopped the server: 0, or 1 if an error of its own stopped it.

    Raises StartRefused if the port or the data can't be used.
    """
    lock = _lock(settings.storage)
    sockets = _bind(settings.server)
    try:
        check_storage(settings.storage.data_dir, settings.storage.database_path)
    except StorageRefused as error:
        raise StartRefused(str(error)) from None
    server = Server(create_app(settings, lock), settings, sockets)
    try:
        server.run()
    except SystemExit:
        # uvicorn has logged why the application did not start.
        return 1
    if server.started:
        log.info("stopped")
    return 0 if server.started else 1


class StartRefused(Exception):
    """The server can't start with these settings or in this environment. The message is one line."""


def _lock(settings: StorageSettings) -> DataDirLock:
    try:
        return DataDirLock(settings.data_dir)
    except DataDirInUse as error:
        raise StartRefused(str(error)) from None
    except OSError as error:
        problem = f"{settings.data_dir} can't be made or written ({error.strerror})"
        raise StartRefused(f"DATA_DIR: {problem}") from None


def _bind(settings: ServerSettings) -> list[socket.socket]:
    try:
        return bound_sockets(settings.host, settings.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartRefused(f"port {settings.port} is in use. Set PORT.") from None
        address = f"HOST={settings.host}, PORT={settings.port}"
        raise StartRefused(f"{address}: can't listen there ({error.strerror}). Set another address.") from None


def main() -> int:
    """The exit code of the process: 2 if the settings or the environment don't allow it to start. Else see `serve`."""
    # OpenBLAS's threads spin while they wait, which doubles the CPU time of a search; our matrices are too small to
    # gain from threads. numpy reads the variable when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        settings = Settings.load()
        check(settings)
    except SettingsError as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 2
    if settings.server.reload:
        uvicorn.run(
            "backend.main:create_app",
            factory=True,
            reload=True,
            reload_dirs=[str(Path(__file__).parent)],
            host=settings.server.host,
            port=settings.server.port,
            log_config=None,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        return 0
    try:
        return serve(settings)
    except StartRefused as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 2


def __getattr__(name: str) -> FastAPI:
    """The application as `backend.main:app`, made at the first access. Raises AttributeError for other names."""
    if name == "app":
        return create_app()
    raise AttributeError(name)


if __name__ == "__main__":
    del sys.modules["rich"]
    gc.freeze()
    gc.enable()
    sys.exit(main())
