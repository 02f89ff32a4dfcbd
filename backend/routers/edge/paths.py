"""Ids in paths that several router modules use. Ids that only one module uses are in that module."""

from typing import Annotated

from fastapi import Path

SessionId = Annotated[
    str,
    Path(
        description="A session's id: `session_id` in a run's first event or in the answer, or an `id` in GET /sessions."
    ),
]
MessageId = Annotated[str, Path(description="A message's id: an `id` in GET /sessions/{session_id}/messages.")]
