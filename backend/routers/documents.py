"""Documents: upload, list, watch, read, delete; and the search in them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.errors import Invalid, NotFound, StreamForgeError
from backend.events import clean_text
from backend.routers.problems import responses
from backend.routers.state import Owner, ReadyServices, ServicesDep
from backend.routers.streams import stream_response
from backend.routers.times import Time, iso
from backend.services.documents import display_name
from backend.storage.documents import DocumentRow

router = APIRouter(prefix="/documents", tags=["documents"])
search_router = APIRouter(tags=["documents"])


class Document(BaseModel):
    """An uploaded file. It can be searched when `status` is ready."""

    id: str
    filename: str
    status: str = Field(
        description="queued, parsing, chunking, embedding, indexing, ready or failed", examples=["ready"]
    )
    reason_code: str | None = Field(None, description="Why it failed, as a stable code.")
    reason: str | None = Field(None, description="Why it failed and what to do, in words.")
    version: str
    media_type: str | None = Field(None, description="Found out from the content, not from the name.")
    size: int = Field(description="Bytes.")
    sha256: str
    title: str | None = None
    pages: int | None = None
    chunks: int | None = Field(None, description="Searchable passages.")
    progress: dict[str, Any] = Field(description="`done` of `total` passages embedded, `seconds` spent per stage.")
    created_at: Time
    updated_at: Time


class Uploaded(BaseModel):
    """What became of one file of an upload. `duplicate`: the same bytes were here already."""

    id: str | None = None
    filename: str
    status: str
    duplicate: bool = False
    reason_code: str | None = None
    reason: str | None = None


class Uploads(BaseModel):
    """One entry a file, in the order sent. `id` and `status` repeat the first one's, for uploads of one file."""

    id: str | None = None
    status: str
    documents: list[Uploaded]


class DocumentList(BaseModel):
    """A page of documents, newest first."""

    items: list[Document]
    next_cursor: str | None = None


class DocumentEvent(BaseModel):
    """One event of GET /documents/{id}/events: the document as it is now. The stream ends at ready or failed."""

    type: str = "document"
    document: Document


class DocumentText(BaseModel):
    """`text` is `[start:end]` of the canonical text, in Unicode code points."""

    document_id: str
    version: str
    start: int
    end: int
    text: str


@router.post(
    "/upload",
    status_code=202,
    responses={
        200: {"model": Uploads, "description": "With wait=true: every file is ready or failed."},
        **responses(400, 401, 403, 409, 413, 422, 503, 507),
    },
    summary="Upload files",
)
async def upload(
    file: list[UploadFile],
    services: ReadyServices,
    owner: Owner,
    response: Response,
    wait: Annotated[bool, Query(description="Answer when every file can be searched, or has failed.")] = False,
) -> Uploads:
    """PDF, DOCX, Markdown, HTML or plain text, told apart by their content. The same bytes are the same document."""
    most = services.settings.knowledge.max_upload_files
    if len(file) > most:
        raise Invalid(f"file: {len(file)} files, the limit of one upload is {most} (MAX_UPLOAD_FILES).")
    if len(file) == 1:
        return await stored(services, owner, file[0].filename or "", file[0].file, response, wait)
    results = [await _add_or_reason(services, owner, each) for each in file]
    if wait:
        results = list(await asyncio.gather(*(_settled(services, owner, each) for each in results)))
        response.status_code = 200
    return Uploads(id=results[0].id, status=results[0].status, documents=results)


async def stored(
    services: ServicesDep, owner: str, name: str, source: BinaryIO, response: Response, wait: bool
) -> Uploads:
    """Add one document, as an upload of one file does."""
    result = await _add(services, owner, name, source)
    if wait:
        result = await _settled(services, owner, result)
        response.status_code = 200
    return Uploads(id=result.id, status=result.status, documents=[result])


async def _add(services: ServicesDep, owner: str, name: str, source: BinaryIO) -> Uploaded:
    row, new = await services.documents.add(owner, name, source)
    return Uploaded(
        id=row.id,
        filename=row.name,
        status=row.status,
        duplicate=not new,
        reason_code=row.reason_code,
        reason=row.reason,
    )


async def _add_or_reason(services: ServicesDep, owner: str, file: UploadFile) -> Uploaded:
    """One bad file of several doesn't lose the others."""
    try:
        return await _add(services, owner, file.filename or "", file.file)
    except StreamForgeError as error:
        if error.status >= 500:
            raise
        return Uploaded(
            filename=display_name(file.filename or ""), status="failed", reason_code=error.code, reason=error.message
        )


async def _settled(services: ServicesDep, owner: str, uploaded: Uploaded) -> Uploaded:
    if uploaded.id is None:
        return uploaded
    row = await services.documents.settled(owner, uploaded.id)
    return uploaded.model_copy(update={"status": row.status, "reason_code": row.reason_code, "reason": row.reason})


@router.get("", responses=responses(401, 422), summary="Your documents")
async def documents(
    services: ServicesDep,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> DocumentList:
    """Newest first, a page at a time."""
    rows = await services.documents.page(owner, limit + 1, cursor)
    following = rows[limit - 1].id if len(rows) > limit else None
    return DocumentList(items=[_document(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{document_id}", responses=responses(401, 404), summary="One document")
async def document(document_id: str, services: ServicesDep, owner: Owner) -> Document:
    """How far it is; if it failed, why."""
    return _document(await services.documents.get(owner, document_id))


@router.get(
    "/{document_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "The document as it is now, again at each change, until it is ready or failed.",
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
    version: Annotated[str | None, Query(description="As in a citation; none is the active one.")] = None,
    start: Annotated[int, Query(ge=0, le=2**40)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**40)] = None,
) -> DocumentText:
    """What citations point into: `quote` of a citation is exactly its `[start:end]` here."""
    found = await services.documents.text(owner, document_id, version, start, end)
    row = await services.documents.get(owner, document_id)
    return DocumentText(document_id=row.id, version=row.version, start=start, end=start + len(found), text=found)


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


@router.delete("/{document_id}", status_code=204, responses=responses(401, 403, 404), summary="Delete a document")
async def delete(document_id: str, services: ServicesDep, owner: Owner) -> Response:
    """Removes rows, vectors and the file. Answers that quoted it keep their quotes."""
    await services.readiness.wait()
    await services.documents.delete(owner, document_id)
    return Response(status_code=204)


class SearchRequest(BaseModel):
    """What to look for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"query": "notice period", "top_k": 5}]})

    query: str = Field(min_length=1, max_length=4000)
    top_k: int = Field(5, ge=1, le=100)
    documents: list[str] | None = Field(None, max_length=100, description="Only in these; none is all of yours.")

    @field_validator("documents")
    @classmethod
    def _ids(cls, value: list[str] | None) -> list[str] | None:
        if any(each != clean_text(each) for each in value or ()):
            raise ValueError("must be document ids")
        return value

    @field_validator("query")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value


class FoundPassage(BaseModel):
    """A passage, its text exactly as in the document: `[start:end]` of the canonical text."""

    text: str
    document_id: str
    filename: str
    version: str
    chunk_id: str
    page: int | None = None
    heading: str | None = None
    start: int
    end: int
    score: float = Field(description="0 to 1: closeness in meaning and share of the query's words, 2 to 1.")


class SearchResult(BaseModel):
    """Passages, best first."""

    passages: list[FoundPassage]


@search_router.post(
    "/search", responses=responses(400, 401, 403, 404, 409, 422, 502, 503),
    summary="Search your documents",
)  # fmt: skip
async def search(body: SearchRequest, services: ReadyServices, owner: Owner) -> SearchResult:
    """What retrieval sees for a query, without a model and without the floor of relevance."""
    if body.documents is not None:
        await services.documents.check_exist(owner, body.documents)
    found = await services.knowledge.search(owner, [body.query], body.top_k, body.documents)
    return SearchResult(
        passages=[
            FoundPassage(
                text=p.text,
                document_id=p.document_id,
                filename=p.title,
                version=p.version,
                chunk_id=p.chunk_id,
                page=p.page,
                heading=p.heading,
                start=p.start,
                end=p.end,
                score=round(p.score, 4),
            )
            for p in found
        ]
    )


def _document(row: DocumentRow) -> Document:
    return Document(
        id=row.id,
        filename=row.name,
        status=row.status,
        reason_code=row.reason_code,
        reason=row.reason,
        version=row.version,
        media_type=row.media_type,
        size=row.size,
        sha256=row.sha256,
        title=row.title,
        pages=row.pages,
        chunks=row.chunks,
        progress=row.progress,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def _frame(row: DocumentRow) -> bytes:
    event = DocumentEvent(document=_document(row))
    return b"data: " + event.model_dump_json(exclude_none=True).encode() + b"\n\n"
