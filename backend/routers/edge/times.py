"""Times on the wire: ISO 8601, UTC, milliseconds."""

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field

from backend.kit.times import iso

__all__ = ["Moment", "Time", "iso"]

Time = Annotated[str, Field(examples=["2026-01-31T12:00:00.000Z"], json_schema_extra={"format": "date-time"})]


def _refuse_numbers(value: object) -> object:
    # Pydantic would read a number as seconds or milliseconds, depending on its size.
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("must be a day or a time, e.g. 2026-01-31 or 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_refuse_numbers)]
"""A day or a time of a request."""
