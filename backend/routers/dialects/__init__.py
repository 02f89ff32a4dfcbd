"""The dialects, one module each: how a run's events are encoded for clients. This package lists those of all answers.

A client chooses a dialect with `?format=`, else with `Accept`. A dialect of other endpoints is imported only by those.
"""

from fastapi import Request

from backend.errors import Invalid
from backend.routers.dialects import events, json, text
from backend.services.runs.dialect import Dialect

BY_FORMAT: dict[str, Dialect] = {"events": events.DIALECT, "text": text.FRAMES}
BY_ACCEPT: dict[str, Dialect | json.JsonAnswer] = {"application/json": json.ANSWER, "text/plain": text.PLAIN}


def dialect_of(request: Request) -> Dialect | json.JsonAnswer:
    """The dialect that the request asks for. Raises Invalid."""
    name = request.query_params.get("format", "events")
    dialect = BY_FORMAT.get(name)
    if dialect is None:
        raise Invalid(f"format: must be {' or '.join(BY_FORMAT)}")
    accept = request.headers.get("accept", "")
    if name != "events" or "text/event-stream" in accept:
        return dialect
    return next((other for media_type, other in BY_ACCEPT.items() if media_type in accept), dialect)
