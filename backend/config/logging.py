"""Structured logs: console or JSON, one line per event, with the ids of request and run.

The log contains ids, counts and codes, and what a provider says when it refuses. It never contains a model's answer or
a secret, nor a user's text, unless a provider's refusal quotes it (LOG_PROVIDER_TEXT=0 leaves that out).
"""

import logging
import sys
from typing import Any

import structlog

from backend.config.groups.logs import LogSettings

_NOISY_LIBRARIES = (
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
_QUOTING_LIBRARIES = ("langchain_google_genai", "root")
"""Loggers whose warnings quote what a provider sent. Only an SDK that can't parse a response uses the root logger."""

_SHORT_ID = 8
"""How many characters of an id the console shows."""
_PROCESSORS: list[Any] = []
"""One list for the whole process. Loggers keep a reference to it, so they also use processors that are set later."""


def configure_logging(settings: LogSettings) -> None:
    """Send the records of structlog and of the standard library through one renderer to stderr."""
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
    handler.addFilter(lambda record: record.name not in _QUOTING_LIBRARIES or record.levelno >= logging.ERROR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _route(handler, settings.log_level)


def _processors(settings: LogSettings) -> tuple[list[Any], Any]:
    """The processors of every record, and the renderer. Tracebacks have no locals: these hold messages and keys."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        *([] if settings.log_provider_text else [_without_quotes]),
    ]
    if settings.log_format == "json":
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        return [
            *shared,
            stamp,
            structlog.processors.ExceptionRenderer(transformer),
        ], structlog.processors.JSONRenderer()
    return [
        *shared,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        _for_people,
    ], structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )


def _for_people(_logger: Any, _method: str, event: Any) -> Any:
    """The record with short ids, ids at its end, and without empty fields."""
    fields = {name: value for name, value in event.items() if value is not None}
    ids = {name: fields.pop(name) for name in list(fields) if name.endswith("_id")}
    return fields | {name: _short_id(str(value)) for name, value in ids.items()}


def _short_id(value: str) -> str:
    """The last characters of an id, which are random: a search for them finds the line of a whole id."""
    return value if len(value) <= _SHORT_ID else f"…{value[-_SHORT_ID:]}"


def _without_quotes(_logger: Any, _method: str, event: Any) -> Any:
    """The record without its field `said`: the provider's own text, which may quote the prompt."""
    event.pop("said", None)
    return event


def _route(handler: logging.Handler, level: str) -> None:
    """Send all records to one handler, but only warnings and errors of noisy libraries."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
