"""Documents: upload, list, watch, read, replace, move, delete; and the search in them."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from backend.config.settings import Settings
from backend.errors import Invalid, NotFound, StreamForgeError
from backend.routers.answers.respond import stream_response
from backend.routers.documents.views import (
    DeletionReceipt,
    Document,
    DocumentChange,
    DocumentEvent,
    DocumentId,
    DocumentList,
    DocumentText,
    Replaced,
    SweepResult,
    Uploaded,
    Uploads,
    VersionList,
    document_of,
    receipt_of,
    replaced_of,
    swept_of,
    version_of,
)
from backend.routers.edge.limits import JSON_BODY
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.services.library.documents import DocumentRow, Status, display_name

router = APIRouter(prefix="/documents", tags=["documents"])
TAG = {"name": "documents", "description": "The files that answers are based on."}
SCHEMAS = (DocumentEvent,)
FILE_PATHS = re.compile(r"/documents/(upload|[^/]+/content)")
"""Paths whose bodies are files. Every other body is JSON."""
_FILES_PER_REQUEST = 4
"""How many files of the largest size fit into one upload. Further files go into another upload."""


def max_body(settings: Settings) -> int:
    """The most bytes that a request of this router may have."""
    return settings.library.max_upload_mb * 1_000_000 * _FILES_PER_REQUEST + JSON_BODY


FilterCollection = Annotated[str | None, Query(description="The id of one of your collections.")]
Collection = Annotated[str | None, Query(description="Id of one of your collections. Unset: the default collection.")]


@router.post(
    "/upload",
    status_code=202,
    responses={
        200: {"model": Uploads, "description": "With wait=true: every file is ready or has failed."},
        **responses(400, 401, 403, 404, 409, 413, 422, 503, 507),
    },
    summary="Upload files",
)
async def upload(
    file: list[UploadFile],
    services: ReadyServices,
    owner: Owner,
    response: Response,
    request: Request,
    wait: Annotated[
        bool, Query(description="true: respond only when every file can be searched, or has failed.")
    ] = False,
    collection: Collection = None,
    collection_field: Annotated[
        str | None, Form(alias="collection", description="Id of one of your collections, as a form field.")
    ] = None,
) -> Uploads:
    """Stores PDF, Word, PowerPoint, Excel, CSV, EPUB, HTML, Markdown, e-mail, JSON, source code, images or plain
    text. The format is detected from the content. If you upload the same bytes again, you get the same document.
    """
    unknown = (await request.form()).keys() - {"file", "collection"}
    if unknown:
        raise Invalid(f"{sorted(unknown)[0]}: is no field of an upload. Its fields are file and collection.")
    collection = collection or collection_field
    most = services.settings.library.max_upload_files
    if len(file) > most:
        raise Invalid(f"file: {len(file)} files, the limit of one upload is {most} (MAX_UPLOAD_FILES).")
    if len(file) == 1:
        name, source = file[0].filename or "", file[0].file
        return await stored(services, owner, name, source, collection, response, wait)
    results = [await _add_or_reason(services, owner, each, collection) for each in file]
    if wait:
        results = list(await asyncio.gather(*(_settled(services, owner, each) for each in results)))
        response.status_code = 200
    return Uploads(id=results[0].id, status=results[0].status, documents=results)


async def stored(
    services: ServicesDep,
    owner: str,
    name: str,
    source: BinaryIO,
    collection: str | None,
    response: Response,
    wait: bool,
) -> Uploads:
    """Add one document, as an upload of one file does."""
    result = await _add(services, owner, name, source, collection)
    if wait:
        result = await _settled(services, owner, result)
        response.status_code = 200
    return Uploads(id=result.id, status=result.status, documents=[result])


async def _add(services: ServicesDep, owner: str, name: str, source: BinaryIO, collection: str | None) -> Uploaded:
    row, new = await services.documents.add(owner, name, source, collection)
    return Uploaded(
        id=row.id,
        filename=row.name,
        status=row.status,
        duplicate=not new,
        reason_code=row.reason_code,
        reason=row.reason,
    )


async def _add_or_reason(services: ServicesDep, owner: str, file: UploadFile, collection: str | None) -> Uploaded:
    """One bad file of several doesn't lose the others."""
    try:
        return await _add(services, owner, file.filename or "", file.file, collection)
    except StreamForgeError as error:
        if error.status >= 500 or isinstance(error, NotFound):
            raise
        return Uploaded(
            filename=display_name(file.filename or ""), status="failed", reason_code=error.code, reason=error.message
        )


async def _settled(services: ServicesDep, owner: str, uploaded: Uploaded) -> Uploaded:
    if uploaded.id is None:
        return uploaded
    row = await services.documents.settled(owner, uploaded.id)
    return uploaded.model_copy(update={"status": row.status, "reason_code": row.reason_code, "reason": row.reason})


@router.get("", responses=responses(400, 401, 404, 422), summary="Your documents")
async def documents(
    services: ServicesDep,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
    collection: FilterCollection = None,
    status: Annotated[Status | None, Query(description="Only documents with this status.")] = None,
) -> DocumentList:
    """Returns a page of your documents, newest first. You can filter by collection and status."""
    _, before = position_of(cursor) or (0, None)
    rows = await services.documents.page(owner, limit + 1, before, collection, status)
    following = cursor_of(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
    return DocumentList(items=[document_of(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{document_id}", responses=responses(401, 404), summary="One document")
async def document(document_id: DocumentId, services: ServicesDep, owner: Owner) -> Document:
    """Returns the document's status and progress, and the reason if it failed."""
    return document_of(await services.documents.get(owner, document_id))


@router.get(
    "/{document_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "The document, once at the beginning and again after each change, until it is ready, "
            "failed or cancelled.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/DocumentEvent"}}},
        },
        **responses(401, 404),
    },
    summary="Watch the progress of a document",
)
async def document_events(document_id: DocumentId, services: ServicesDep, owner: Owner) -> Response:
    """Streams Server-Sent Events: one for each change of status or progress."""
    watched = services.documents.watch(owner, document_id)
    first = await anext(watched)

    async def frames() -> AsyncGenerator[bytes]:
        yield _frame(first)
        try:
            async for row in watched:
                yield _frame(row)
        except NotFound:
            # Deleted while it was watched: there is nothing more to tell.
            return

    return stream_response(frames(), services.settings.runs)


@router.get("/{document_id}/text", responses=responses(401, 404, 409, 422), summary="Canonical text of a document")
async def text(
    document_id: DocumentId,
    services: ServicesDep,
    owner: Owner,
    version: Annotated[
        str | None, Query(description="A version as in a citation; it can be an old one. Unset: the active version.")
    ] = None,
    start: Annotated[int, Query(ge=0, le=2**40)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**40)] = None,
) -> DocumentText:
    """Returns the text that citations point into: `quote` of a citation is exactly `[start:end]` of this text."""
    found, part = await services.documents.text(owner, document_id, version, start, end)
    return DocumentText(document_id=document_id, version=found, start=start, end=start + len(part), text=part)


@router.get(
    "/{document_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **responses(401, 404)},
    summary="Original file of a document",
)
async def content(document_id: DocumentId, services: ServicesDep, owner: Owner) -> FileResponse:
    """Returns the file as a download; browsers don't display it, because a document may contain scripts."""
    row, path = await services.documents.original(owner, document_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.put(
    "/{document_id}/content",
    status_code=202,
    responses={
        200: {
            "model": Replaced,
            "description": "The document has these bytes already. Or, with wait=true: the new version is ready, "
            "failed or cancelled.",
        },
        **responses(400, 401, 403, 404, 409, 413, 422, 503, 507),
    },
    summary="Replace a document's content",
)
async def replace(
    document_id: DocumentId,
    file: UploadFile,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    wait: Annotated[
        bool, Query(description="true: respond only when the new content can be searched, or has failed.")
    ] = False,
) -> Replaced:
    """Uploads a new version. Searches use the old version until the new one is ready. If the new one fails or is
    cancelled, the old one stays.
    """
    row, changed = await services.documents.replace(owner, document_id, file.file)
    if wait:
        row = await services.documents.settled(owner, document_id)
    if wait or not changed:
        response.status_code = 200
    return replaced_of(row, not changed)


@router.get("/{document_id}/versions", responses=responses(401, 404), summary="Versions of a document")
async def versions(document_id: DocumentId, services: ServicesDep, owner: Owner) -> VersionList:
    """Returns all versions, newest first: pending, searchable and old ones. Citations name the version that they
    quote.
    """
    return VersionList(items=[version_of(row) for row in await services.documents.versions(owner, document_id)])


@router.patch(
    "/{document_id}",
    responses={
        202: {"model": Document, "description": "The document is being re-embedded for that collection: see `moving`."},
        **responses(401, 403, 404, 409, 422, 502, 503),
    },
    summary="Rename or move a document",
)
async def change(
    document_id: DocumentId, body: DocumentChange, services: ReadyServices, owner: Owner, response: Response
) -> Document:
    """Changes the name or moves the document. If both collections use the same embedding model, the move is done at
    once. Otherwise searches find the document in its old collection until the move is done.
    """
    if body.name is not None:
        await services.documents.rename(owner, document_id, body.name)
    if body.collection_id is not None:
        await services.documents.move(owner, document_id, body.collection_id)
    row = await services.documents.get(owner, document_id)
    if row.moving is not None:
        response.status_code = 202
    return document_of(row)


@router.post("/{document_id}/cancel", responses=responses(401, 403, 404, 503), summary="Stop reading a document")
async def cancel(document_id: DocumentId, services: ReadyServices, owner: Owner) -> Document:
    """Cancels what waits or is running. A version that was searchable before stays searchable. If there is nothing
    to cancel, this does nothing.
    """
    return document_of(await services.documents.cancel(owner, document_id))


@router.post(
    "/{document_id}/retry", status_code=202, responses=responses(401, 403, 404, 503), summary="Try a document again"
)
async def retry(document_id: DocumentId, services: ReadyServices, owner: Owner) -> Document:
    """Continues now what failed, was cancelled, or waits for its next attempt, from where it stopped."""
    return document_of(await services.documents.retry(owner, document_id))


@router.delete("/{document_id}", responses=responses(401, 403, 404, 503), summary="Delete a document")
async def delete(document_id: DocumentId, services: ReadyServices, owner: Owner) -> DeletionReceipt:
    """Removes database rows, vectors and the file, and returns their numbers. Answers that quoted the document keep
    their quotes.
    """
    return receipt_of(await services.documents.delete(owner, document_id))


@router.post("/sweep", responses=responses(401, 403, 503), summary="Find and remove leftovers")
async def sweep(services: ReadyServices, owner: Owner) -> SweepResult:
    """Compares your documents with vectors, lexical indexes and files. Removes what belongs to no document, and
    indexes again what is missing.
    """
    return swept_of(await services.documents.sweep(owner))


def _frame(row: DocumentRow) -> bytes:
    event = DocumentEvent(document=document_of(row))
    return b"data: " + event.model_dump_json(exclude_none=True).encode() + b"\n\n"
