"""The cursors of pages. A cursor contains time and id of the last item of a page; clients treat it as opaque text."""

import base64
from typing import Annotated

from fastapi import Query

from backend.errors import BadRequest
from backend.routers.edge.bounds import MAX_CURSOR

Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR, description="`next_cursor` of the previous page.")]


def cursor_of(moment: int, id_: str) -> str:
    """The cursor of the page after the item with this time (ms) and id."""
    return base64.urlsafe_b64encode(f"{moment} {id_}".encode()).decode()


def position_of(cursor: str | None) -> tuple[int, str] | None:
    """Time and id of the item before the page; None without a cursor. Raises BadRequest (`bad_cursor`)."""
    if cursor is None:
        return None
    try:
        milliseconds, _, id_ = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        if not 0 <= (moment := int(milliseconds)) < 2**63:
            raise ValueError
        return moment, id_
    except ValueError:
        raise BadRequest("cursor: must be the next_cursor of a page.", code="bad_cursor") from None
