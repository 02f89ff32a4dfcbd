"""The command `python -m backend.main`, and `app` for other ASGI servers. `app.py` builds the application."""

import gc
import os
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
from backend.config.settings import Settings, SettingsError
from backend.server import CLOSE_SECONDS, Server, is_taken
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from backend.wiring import check

log = structlog.get_logger("streamforge")


def serve(settings: Settings) -> int:
    """The exit code of the process, once a signal has stopped the server."""
    try:
        lock = DataDirLock(settings.storage.data_dir)
    except DataDirInUse as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        folder = settings.storage.data_dir
        print(f"streamforge: DATA_DIR: {folder} can't be made or written ({error.strerror})", file=sys.stderr)
        return 2
    if is_taken(settings.server.host, settings.server.port):
        print(f"streamforge: port {settings.server.port} is in use. Set PORT.", file=sys.stderr)
        return 2
    server = Server(create_app(settings, lock), settings)
    server.run()
    if server.started:
        structlog.get_logger("streamforge").info("stopped")
    return 0 if server.started else 1


def main() -> int:
    """The exit code of the process. Reads the settings and serves."""
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
    return serve(settings)


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
