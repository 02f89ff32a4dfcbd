"""Documents: upload, list, watch, read, replace, move, delete; and the search in them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from backend.errors import Invalid, NotFound, StreamForgeError
from backend.routers.answers.respond import stream_response
from backend.routers.documents.views import (
    DeletionReceipt,
    Document,
    DocumentChange,
    DocumentEvent,
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
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.services.library.documents import DocumentRow, Status, display_name

router = APIRouter(prefix="/documents", tags=["documents"])

CollectionId = Annotated[str | None, Query(description="The id of one of your collections.")]


Collection = Annotated[str | None, Query(description="Into this one of your collections; none is the default.")]


@router.post(
    "/upload",
    status_code=202,
    responses={
        200: {"model": Uploads, "description": "With wait=true: every file is ready or failed."},
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
    wait: Annotated[bool, Query(description="Answer when every file can be searched, or has failed.")] = False,
    collection: Collection = None,
    collection_field: Annotated[str | None, Form(alias="collection", description="The same, as a field.")] = None,
) -> Uploads:
    """PDF, Word, PowerPoint, Excel, CSV, EPUB, HTML, Markdown, e-mail, JSON, source code, pictures or plain text, told
    apart by their content. The same bytes are the same document."""
    unknown = (await request.form()).keys() - {"file", "collection"}
    if unknown:
        raise Invalid(f"{sorted(unknown)[0]}: is no field of an upload. Its fields are file and collection.")
    collection = collection or collection_field
    most = services.settings.knowledge.max_upload_files
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
    collection: CollectionId = None,
    status: Annotated[Status | None, Query(description="Only those with this status.")] = None,
) -> DocumentList:
    """Newest first, a page at a time; of one collection, with one status."""
    _, before = position_of(cursor) or (0, None)
    rows = await services.documents.page(owner, limit + 1, before, collection, status)
    following = cursor_of(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
    return DocumentList(items=[document_of(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{document_id}", responses=responses(401, 404), summary="One document")
async def document(document_id: str, services: ServicesDep, owner: Owner) -> Document:
    """How far it is; if it failed, why."""
    return document_of(await services.documents.get(owner, document_id))


@router.get(
    "/{document_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "The document as it is now, again at each change, until nothing more happens by itself.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/DocumentEvent"}}},
        },
        **responses(401, 404),
    },
    summary="Watch a document being read",
)
async def document_events(document_id: str, services: ServicesDep, owner: Owner) -> Response:
    """Server-Sent Events, one at each stage and step."""
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


@router.get("/{document_id}/text", responses=responses(401, 404, 409, 422), summary="Its canonical text")
async def text(
    document_id: str,
    services: ServicesDep,
    owner: Owner,
    version: Annotated[
        str | None, Query(description="As in a citation, also of earlier ones; none is the active one.")
    ] = None,
    start: Annotated[int, Query(ge=0, le=2**40)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**40)] = None,
) -> DocumentText:
    """What citations point into: `quote` of a citation is exactly its `[start:end]` here."""
    found, part = await services.documents.text(owner, document_id, version, start, end)
    return DocumentText(document_id=document_id, version=found, start=start, end=start + len(part), text=part)


@router.get(
    "/{document_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **responses(401, 404)},
    summary="The file as it was uploaded",
)
async def content(document_id: str, services: ServicesDep, owner: Owner) -> FileResponse:
    """Always a download, never shown: a document may hold scripts."""
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
            "description": "Unchanged: these bytes are here already. Or, with wait=true: settled.",
        },
        **responses(400, 401, 403, 404, 409, 413, 422, 503, 507),
    },
    summary="Replace its content",
)
async def replace(
    document_id: str,
    file: UploadFile,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    wait: Annotated[bool, Query(description="Answer when the new content is searched, or has failed.")] = False,
) -> Replaced:
    """A new version. The old one answers until the new one is ready, and stays if that fails or is cancelled."""
    row, changed = await services.documents.replace(owner, document_id, file.file)
    if wait:
        row = await services.documents.settled(owner, document_id)
    if wait or not changed:
        response.status_code = 200
    return replaced_of(row, not changed)


@router.get("/{document_id}/versions", responses=responses(401, 404), summary="Its versions")
async def versions(document_id: str, services: ServicesDep, owner: Owner) -> VersionList:
    """Newest first: what is pending, what is searched, and what was before. Citations name the version they quote."""
    return VersionList(items=[version_of(row) for row in await services.documents.versions(owner, document_id)])


@router.patch(
    "/{document_id}",
    responses={
        202: {"model": Document, "description": "It is being embedded anew for that collection: see `moving`."},
        **responses(401, 403, 404, 409, 422, 502, 503),
    },
    summary="Rename or move a document",
)
async def change(
    document_id: str, body: DocumentChange, services: ReadyServices, owner: Owner, response: Response
) -> Document:
    """A move is at once where both collections are embedded by the same model; until it is done, it is found where it
    was."""
    if body.name is not None:
        await services.documents.rename(owner, document_id, body.name)
    if body.collection_id is not None:
        await services.documents.move(owner, document_id, body.collection_id)
    row = await services.documents.get(owner, document_id)
    if row.moving is not None:
        response.status_code = 202
    return document_of(row)


@router.post("/{document_id}/cancel", responses=responses(401, 403, 404, 503), summary="Stop reading a document")
async def cancel(document_id: str, services: ReadyServices, owner: Owner) -> Document:
    """What waits or is under way is cancelled; what could be searched before still can. Nothing to cancel is no
    error."""
    return document_of(await services.documents.cancel(owner, document_id))


@router.post(
    "/{document_id}/retry", status_code=202, responses=responses(401, 403, 404, 503), summary="Try a document again"
)
async def retry(document_id: str, services: ReadyServices, owner: Owner) -> Document:
    """What failed, was cancelled, or waits for its next try, goes on now from where it was."""
    return document_of(await services.documents.retry(owner, document_id))


@router.delete("/{document_id}", responses=responses(401, 403, 404, 503), summary="Delete a document")
async def delete(document_id: str, services: ReadyServices, owner: Owner) -> DeletionReceipt:
    """Removes rows, vectors and the file, and says how many. Answers that quoted it keep their quotes."""
    return receipt_of(await services.documents.delete(owner, document_id))


@router.post("/sweep", responses=responses(401, 403, 503), summary="Find and remove what nothing leads to")
async def sweep(services: ReadyServices, owner: Owner) -> SweepResult:
    """Compares your documents with vectors, lexical indexes and files; what is missing is indexed again."""
    return swept_of(await services.documents.sweep(owner))


def _frame(row: DocumentRow) -> bytes:
    event = DocumentEvent(document=document_of(row))
    return b"data: " + event.model_dump_json(exclude_none=True).encode() + b"\n\n"
