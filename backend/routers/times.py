"""Times on the wire: ISO 8601, UTC, milliseconds."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

Time = Annotated[str, Field(examples=["2026-01-31T12:00:00.000Z"], json_schema_extra={"format": "date-time"})]


def iso(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
