"""Stored documents: list, read, watch, rename, move, cancel, retry, delete, sweep."""

from collections.abc import AsyncGenerator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from backend.config.groups.accounts import LOCAL
from backend.errors import NotFound
from backend.routers.answers.respond import stream_response
from backend.routers.documents.views import (
    DeletionReceipt,
    Document,
    DocumentChange,
    DocumentEvent,
    DocumentId,
    DocumentList,
    DocumentText,
    SweepResult,
    VersionList,
    document_view,
    receipt_view,
    sweep_view,
    version_view,
)
from backend.routers.edge.bounds import MAX_ID
from backend.routers.edge.examples import NO_COLLECTION, NO_DOCUMENT
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.progress import Progress
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.services.library.documents import DocumentRow, Status

router = APIRouter(prefix="/documents", tags=["documents"], route_class=OwnRoute)
_BYTES = {"type": "string", "format": "binary"}
_DISPLAYED = ("application/pdf", "image/png", "image/jpeg", "image/webp", "image/gif")
_NO_VERSION = ProblemExample(404, "not_found", "No such document, or no such version of it.")
_NOT_READY = ProblemExample(
    409, "document_not_ready", "The document has not been read yet. GET /documents/{id} tells how far it is."
)
_BUSY = ProblemExample(
    409,
    "document_busy",
    "The document is being read. Wait until it is ready, or cancel that (POST /documents/{id}/cancel).",
)
TAG = {"name": "documents", "description": "The files that answers are based on."}
SCHEMAS = (DocumentEvent, Progress)

FilterCollection = Annotated[
    str | None, Query(max_length=MAX_ID, description="The id or name of one of your collections.")
]


@router.get("", responses=responses(400, 401, NO_COLLECTION, 422), summary="Your documents")
async def list_documents(
    services: ServicesDep,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
    collection: FilterCollection = None,
    status: Annotated[Status | None, Query(description="Only documents with this status.")] = None,
) -> DocumentList:
    """Returns a page of your documents, newest first. You can filter by collection and status."""
    _, before = position_of(cursor) or (0, None)
    rows = await services.library.documents.page(owner, limit + 1, before, collection, status)
    next_cursor = cursor_of(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
    return DocumentList(items=[document_view(row) for row in rows[:limit]], next_cursor=next_cursor)


@router.get("/{document_id}", responses=responses(401, NO_DOCUMENT), summary="One document")
async def get_document(document_id: DocumentId, services: ServicesDep, owner: Owner) -> Document:
    """Returns the document's status and progress, and the reason if it failed."""
    return document_view(await services.library.documents.get(owner, document_id))


@router.get(
    "/{document_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "The document, once at the beginning and again after each change, until it is ready, "
            "failed or cancelled.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/DocumentEvent"}}},
        },
        **responses(401, NO_DOCUMENT),
    },
    summary="Watch the progress of a document",
)
async def watch_document(document_id: DocumentId, services: ServicesDep, owner: Owner) -> Response:
    """Streams Server-Sent Events: one for each change of status or progress."""
    changes = services.library.documents.watch(owner, document_id)
    first = await anext(changes)

    async def frames() -> AsyncGenerator[bytes]:
        yield _frame(first)
        try:
            async for row in changes:
                yield _frame(row)
        except NotFound:
            # The document was deleted while it was watched: the stream ends.
            return

    return stream_response(frames(), services.settings.runs)


@router.get(
    "/{document_id}/text",
    responses=responses(401, _NO_VERSION, _NOT_READY, 422),
    summary="Canonical text of a document",
)
async def get_document_text(
    document_id: DocumentId,
    services: ServicesDep,
    owner: Owner,
    version: Annotated[
        str | None,
        Query(
            max_length=MAX_ID,
            description="A version as in a citation; it can be an old one. Unset: the active version.",
        ),
    ] = None,
    start: Annotated[int, Query(ge=0, le=2**40)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**40)] = None,
) -> DocumentText:
    """Returns the text that citations point into: `quote` of a citation is exactly `[start:end]` of this text."""
    version_id, part = await services.library.documents.text(owner, document_id, version, start, end)
    return DocumentText(document_id=document_id, version=version_id, start=start, end=start + len(part), text=part)


@router.get(
    "/{document_id}/content",
    response_class=FileResponse,
    responses={
        200: {"content": {name: {"schema": _BYTES} for name in ("application/octet-stream", *_DISPLAYED)}},
        **responses(401, NO_DOCUMENT),
    },
    summary="Original file of a document",
)
async def get_document_content(
    document_id: DocumentId,
    services: ServicesDep,
    owner: Owner,
    download: Annotated[bool, Query(description="true: always as a download.")] = False,
) -> FileResponse:
    """Returns the file as it was uploaded. A PDF or an image can be displayed by a browser, in a sandbox; every other
    file is a download, because it may contain scripts.
    """
    file = await services.library.documents.original(owner, document_id)
    media_type = None if download else file.displayable_type
    disposition = "attachment" if media_type is None else "inline"
    headers = {
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(file.name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-site",
    }
    return FileResponse(file.path, media_type=media_type or "application/octet-stream", headers=headers)


@router.get("/{document_id}/versions", responses=responses(401, NO_DOCUMENT), summary="Versions of a document")
async def list_document_versions(document_id: DocumentId, services: ServicesDep, owner: Owner) -> VersionList:
    """Returns all versions, newest first: pending, searchable and old ones. Citations name the version that they
    quote.
    """
    return VersionList(
        items=[version_view(row) for row in await services.library.documents.versions(owner, document_id)]
    )


@router.patch(
    "/{document_id}",
    responses={
        202: {"model": Document, "description": "The document is being re-embedded for that collection: see `moving`."},
        **responses(401, 403, NO_DOCUMENT, _BUSY, 422, 502, 503),
    },
    summary="Rename or move a document",
)
async def update_document(
    document_id: DocumentId, body: DocumentChange, services: ReadyServices, owner: Owner, response: Response
) -> Document:
    """Changes the name or moves the document. If both collections use the same embedding model, the move is done at
    once. Otherwise searches find the document in its old collection until the move is done.
    """
    if body.name is not None:
        await services.library.documents.rename(owner, document_id, body.name)
    if body.collection is not None:
        await services.library.moves.move(owner, document_id, body.collection)
    row = await services.library.documents.get(owner, document_id)
    if row.moving is not None:
        response.status_code = 202
    return document_view(row)


@router.post(
    "/{document_id}/cancel", responses=responses(401, 403, NO_DOCUMENT, 503), summary="Stop reading a document"
)
async def cancel_document(document_id: DocumentId, services: ReadyServices, owner: Owner) -> Document:
    """Cancels what waits or is running. A version that was searchable before stays searchable. If there is nothing
    to cancel, this does nothing.
    """
    return document_view(await services.library.documents.cancel(owner, document_id))


@router.post(
    "/{document_id}/retry",
    status_code=202,
    responses=responses(401, 403, NO_DOCUMENT, 503),
    summary="Try a document again",
)
async def retry_document(document_id: DocumentId, services: ReadyServices, owner: Owner) -> Document:
    """Continues now what failed, was cancelled, or waits for its next attempt, from where it stopped."""
    return document_view(await services.library.documents.retry(owner, document_id))


@router.delete("/{document_id}", responses=responses(401, 403, NO_DOCUMENT, 503), summary="Delete a document")
async def delete_document(document_id: DocumentId, services: ReadyServices, owner: Owner) -> DeletionReceipt:
    """Removes database rows, vectors and the file, and returns their numbers. Answers that quoted the document keep
    their quotes.
    """
    return receipt_view(await services.library.documents.delete(owner, document_id))


@router.post("/sweep", responses=responses(401, 403, 503), summary="Find and remove leftovers")
async def sweep_documents(services: ReadyServices, owner: Owner) -> SweepResult:
    """Compares your documents with vectors, lexical indexes and files. Removes what belongs to no document, and
    indexes again what is missing.
    """
    report = await services.library.sweep.sweep_owner(owner, include_orphans=owner == LOCAL)
    return sweep_view(report)


def _frame(row: DocumentRow) -> bytes:
    event = DocumentEvent(document=document_view(row))
    return b"data: " + event.model_dump_json(exclude_none=True).encode() + b"\n\n"
