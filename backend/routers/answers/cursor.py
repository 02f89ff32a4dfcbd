"""The cursor of a stream: the seq of the last event that the client has."""

from typing import Annotated

from fastapi import Query

from backend.errors import (
    BadRequest,
)
from backend.routers.edge.bounds import MAX_ID

AfterQuery = Annotated[
    str | None,
    Query(
        max_length=MAX_ID,
        description="The `seq` of the last event that you received. `Last-Event-ID` wins.",
        examples=["17"],
    ),
]


def parse_cursor(run_id: str, last_event_id: str | None, after: str | None) -> int:
    """The seq after which the stream continues: from `Last-Event-ID` (`<run_id>:<seq>`), else from `?after=` (a seq),
    else 0.

    Raises BadRequest (`bad_cursor`).
    """
    if last_event_id is not None:
        id_of_run, _, seq = last_event_id.rpartition(":")
        if id_of_run != run_id:
            raise BadRequest(
                f"Last-Event-ID must be {run_id}:<seq>, the id of an event of this run.", code="bad_cursor"
            )
    elif after is not None:
        seq = after
    else:
        return 0
    if not (seq.isascii() and seq.isdigit() and len(seq) <= 15):
        raise BadRequest("The cursor must be the seq of an event, a whole number.", code="bad_cursor")
    return int(seq)
