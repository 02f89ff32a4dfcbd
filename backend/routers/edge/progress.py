"""The progress of work on documents and collections, as the database has it."""

from typing import Annotated, Any

from pydantic import Field

from backend.routers.edge.view import View, schema_of


class Progress(View):
    """How far the work is. Fields are left out until they are known."""

    done: int | None = Field(None, description="Number of chunks that are embedded.")
    total: int | None = Field(None, description="Number of chunks in all.")
    rate: float | None = Field(None, description="Chunks per second.")
    seconds: dict[str, float] | None = Field(None, description="Seconds spent in each stage.")
    model: str | None = Field(None, description="The model of a re-embedding.")


StoredProgress = Annotated[dict[str, Any], schema_of("Progress")]
