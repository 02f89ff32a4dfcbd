"""New content: uploaded files, texts, pages and files behind URLs, and files that replace others."""

import asyncio
import io
import re
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.config.settings import Settings
from backend.errors import Forbidden, Invalid, NotFound, StreamForgeError
from backend.kit.text import check_clean
from backend.routers.documents.views import DocumentId, Replaced, Uploaded, Uploads, replaced_view
from backend.routers.edge.body_limits import JSON_BODY, TEXT_BODY
from backend.routers.edge.bounds import MAX_ID
from backend.routers.edge.examples import EMBEDDING_MISMATCH, NO_COLLECTION, NO_DOCUMENT
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.services.library.file_names import display_name

router = APIRouter(prefix="/documents", tags=["documents"], route_class=OwnRoute)
_DUPLICATE = ProblemExample(
    409,
    "document_duplicate",
    "The collection holds these bytes already, as document doc_0193…. Delete one of the two first.",
)
FILE_PATHS = re.compile(r"/documents/(upload|[^/]+/content)")
"""Paths whose bodies are files. Every other body is JSON."""
_FILES_PER_REQUEST = 4
"""Number of files of the maximum size that fit into one upload."""


def max_body(settings: Settings) -> int:
    """The maximum number of bytes of an upload. Requests with JSON have a lower limit at their endpoints."""
    return settings.library.max_upload_mb * 1_000_000 * _FILES_PER_REQUEST + JSON_BODY


Collection = Annotated[
    str | None,
    Query(max_length=MAX_ID, description="Id or name of one of your collections. Unset: the default collection."),
]
Wait = Annotated[bool, Query(description="true: respond only when the document can be searched, or has failed.")]
_AFTER_WAITING = {200: {"model": Uploads, "description": "With wait=true: the document is ready or has failed."}}
_MAX_NAME = 60
_MARKS = re.compile(r"[\s#>*_`=~-]+")


class _NewContent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=255, description="The document's name, as a file name.")

    @field_validator("*")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        check_clean(value)
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value


class TextRequest(_NewContent):
    """A text to store. If its name ends in `.txt`, it is plain text; without a name it is Markdown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "# Opening hours\n\nThe harbour office is open from 8 to 16."},
                {"text": "Meeting of 3 May: the pier is closed in June.", "name": "meeting.txt"},
            ]
        },
    )

    text: str = Field(
        min_length=1,
        max_length=TEXT_BODY,
        description="Markdown or plain text. At most 10 MB of JSON, and MAX_UPLOAD_MB.",
    )


class UrlRequest(_NewContent):
    """A web page or a file to fetch and store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://example.com/handbook.pdf"},
                {"url": "https://example.com/", "name": "example.html"},
            ]
        },
    )

    url: str = Field(max_length=4000, description="http or https. Its host must have a public address.")


@router.post(
    "/text",
    status_code=202,
    max_body_size=TEXT_BODY,
    responses={**_AFTER_WAITING, **responses(400, 401, 403, NO_COLLECTION, EMBEDDING_MISMATCH, 413, 422, 503, 507)},
    summary="Store a text as a document",
)
async def add_text(
    body: TextRequest,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    collection: Collection = None,
    wait: Wait = False,
) -> Uploads:
    """Stores the text like an uploaded file. If you send the same text again, you get the same document."""
    source = io.BytesIO(body.text.encode())
    return await store_document(services, owner, body.name or _name_of(body.text), source, collection, response, wait)


@router.post(
    "/url",
    status_code=202,
    max_body_size=TEXT_BODY,
    responses={
        **_AFTER_WAITING,
        **responses(400, 401, 403, NO_COLLECTION, EMBEDDING_MISMATCH, 413, 422, 502, 503, 504, 507),
    },
    summary="Fetch a page or a file",
)
async def add_url(
    body: UrlRequest,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    collection: Collection = None,
    wait: Wait = False,
) -> Uploads:
    """Fetches a URL once and stores the result like an uploaded file. Responds when it has been fetched.

    Only public addresses, ports 80 and 443 and at most 5 redirects are allowed; `URL_ALLOWED_HOSTS` lists exceptions.
    Scripts of the page are not run. The document's name is taken from `Content-Disposition`, else from the last part of
    the path.
    """
    if services.fetcher is None:
        message = "This server fetches no URLs. Download it and upload the file."
        raise Forbidden(message, code="url_fetch_off", advice="URL_FETCH=1 turns it on.")
    async with services.fetcher.fetch(body.url) as page:
        return await store_document(services, owner, body.name or page.name, page.file, collection, response, wait)


@router.post(
    "/upload",
    status_code=202,
    responses={
        200: {"model": Uploads, "description": "With wait=true: every file is ready or has failed."},
        **responses(400, 401, 403, NO_COLLECTION, EMBEDDING_MISMATCH, 413, 422, 503, 507),
    },
    summary="Upload files",
)
async def upload_documents(
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
        str | None,
        Form(
            alias="collection",
            max_length=MAX_ID,
            description="Id or name of one of your collections, as a form field.",
        ),
    ] = None,
) -> Uploads:
    """Stores PDF, Word, PowerPoint, Excel, CSV, EPUB, HTML, Markdown, e-mail, JSON, source code, images or plain
    text. The format is detected from the content. If you upload the same bytes again, you get the same document.
    """
    await _check_fields(request, "file", "collection")
    collection = collection or collection_field
    limit = services.settings.library.max_upload_files
    if len(file) > limit:
        raise Invalid(
            f"file: {len(file)} files, the limit of one upload is {limit}. Upload them in parts.",
            advice="MAX_UPLOAD_FILES sets the limit.",
        )
    if len(file) == 1:
        name, source = file[0].filename or "", file[0].file
        return await store_document(services, owner, name, source, collection, response, wait)
    results = [await _add_or_fail(services, owner, item, collection) for item in file]
    if wait:
        results = list(await asyncio.gather(*(_wait_until_settled(services, owner, result) for result in results)))
        response.status_code = 200
    return Uploads(id=results[0].id, status=results[0].status, items=results, documents=results)


@router.put(
    "/{document_id}/content",
    status_code=202,
    responses={
        200: {
            "model": Replaced,
            "description": "The document has these bytes already. Or, with wait=true: the new version is ready, "
            "failed or cancelled.",
        },
        **responses(400, 401, 403, NO_DOCUMENT, _DUPLICATE, 413, 422, 503, 507),
    },
    summary="Replace a document's content",
)
async def replace_document_content(
    document_id: DocumentId,
    file: UploadFile,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    request: Request,
    wait: Annotated[
        bool, Query(description="true: respond only when the new content can be searched, or has failed.")
    ] = False,
) -> Replaced:
    """Uploads a new version. Searches use the old version until the new one is ready. If the new one fails or is
    cancelled, the old one stays.
    """
    await _check_fields(request, "file")
    row, changed = await services.library.uploads.replace(owner, document_id, file.file)
    if wait:
        row = await services.library.documents.settled(owner, document_id)
    if wait or not changed:
        response.status_code = 200
    return replaced_view(row, not changed)


async def _check_fields(request: Request, *names: str) -> None:
    """Raises Invalid if the form has another field than these."""
    unknown = (await request.form()).keys() - set(names)
    if unknown:
        message = f"{sorted(unknown)[0][:80]}: is no field of this upload. Its fields: {', '.join(names)}."
        raise Invalid(message)


async def store_document(
    services: ServicesDep,
    owner: str,
    name: str,
    source: BinaryIO,
    collection: str | None,
    response: Response,
    wait: bool,
) -> Uploads:
    """The response to an upload of one document. With `wait`, the document can then be searched, or has failed."""
    result = await _add(services, owner, name, source, collection)
    if wait:
        result = await _wait_until_settled(services, owner, result)
        response.status_code = 200
    return Uploads(id=result.id, status=result.status, items=[result], documents=[result])


async def _add(services: ServicesDep, owner: str, name: str, source: BinaryIO, collection: str | None) -> Uploaded:
    row, is_new = await services.library.uploads.add(owner, name, source, collection)
    return Uploaded(
        id=row.id,
        name=row.name,
        filename=row.name,
        status=row.status,
        duplicate=not is_new,
        reason_code=row.reason_code,
        reason=row.reason,
    )


async def _add_or_fail(services: ServicesDep, owner: str, file: UploadFile, collection: str | None) -> Uploaded:
    """The result for one file of several. If the file can't be stored, the result says why and nothing is raised."""
    try:
        return await _add(services, owner, file.filename or "", file.file, collection)
    except StreamForgeError as error:
        if error.status >= 500 or isinstance(error, NotFound):
            raise
        name = display_name(file.filename or "")
        reason = error.text(with_advice=services.core.shows_advice)
        return Uploaded(name=name, filename=name, status="failed", reason_code=error.code, reason=reason)


async def _wait_until_settled(services: ServicesDep, owner: str, uploaded: Uploaded) -> Uploaded:
    if uploaded.id is None:
        return uploaded
    row = await services.library.documents.settled(owner, uploaded.id)
    return uploaded.model_copy(update={"status": row.status, "reason_code": row.reason_code, "reason": row.reason})


def _name_of(text: str) -> str:
    """The name of a Markdown file, from the first line of the text that contains words."""
    for line in text.lstrip()[:4000].splitlines():
        if words := _MARKS.sub(" ", line[:400]).replace("/", "-").replace("\\", "-").strip():
            short = words if len(words) <= _MAX_NAME else words[:_MAX_NAME].rsplit(" ", 1)[0] + "…"
            return f"{short}.md"
    return "text.md"
