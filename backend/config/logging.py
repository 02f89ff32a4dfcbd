"""Structured logs: console or JSON, one line an event, with the request and run they belong to.

What a person wrote, what a model answered and every secret stay out of the log: log ids, counts and codes.
"""

import logging
import sys
from typing import Any

import structlog

from backend.config.groups.logs import LogSettings

_QUIET = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "chromadb",
    "openai",
    "anthropic",
    "google_genai",
    "sse_starlette",
    "alembic",
    "asyncio",
)
_TELLING = ("langchain_google_genai", "root")
"""Warn with what a provider sent. Nobody logs by the root logger but an SDK that can't read it."""

_PROCESSORS: list[Any] = []
"""One list for the whole process: a logger is made once and keeps it, and must see what is configured later."""


def configure_logging(settings: LogSettings) -> None:
    """Send structlog's and the standard library's records through one renderer to stderr."""
    shared, renderer = _processors(settings)
    _PROCESSORS[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.name not in _TELLING or record.levelno >= logging.ERROR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _route(handler, settings.log_level)


def _processors(settings: LogSettings) -> tuple[list[Any], Any]:
    """What every record goes through, and the renderer. Locals in a traceback would print messages and keys."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if settings.log_provider_text else [_without_quotes]),
    ]
    if settings.log_format == "json":
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [*shared, structlog.processors.ExceptionRenderer(transformer)], structlog.processors.JSONRenderer()
    return shared, structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


def _without_quotes(_logger: Any, _method: str, event: Any) -> Any:
    """A record without `said`, the words of a provider: they may quote what was asked."""
    event.pop("said", None)
    return event


def _route(handler: logging.Handler, level: str) -> None:
    """Everybody's records to one handler; chatty libraries only from warnings on."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
