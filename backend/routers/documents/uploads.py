"""Documents that aren't uploaded as files: a text, and what a URL names."""

import io
import re
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.errors import Forbidden
from backend.kit.text import clean_text
from backend.routers.documents.documents import Collection, Uploads, stored
from backend.routers.edge.limits import TEXT_BODY
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Owner, ReadyServices

router = APIRouter(prefix="/documents", tags=["documents"])
MAX_BODY = TEXT_BODY

Wait = Annotated[bool, Query(description="true: respond only when the document can be searched, or has failed.")]
_WAITED = {200: {"model": Uploads, "description": "With wait=true: the document is ready or has failed."}}
_MAX_NAME = 60
_MARKS = re.compile(r"[\s#>*_`=~-]+")


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=255, description="The document's name, as a file name.")

    @field_validator("*")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        if value is not None and value != clean_text(value):
            raise ValueError("must not hold NUL characters or lone surrogates")
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value


class TextRequest(_Source):
    """A text to store. If its name ends in `.txt`, it is plain text; without a name it is Markdown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "# Opening hours\n\nThe harbour office is open from 8 to 16."},
                {"text": "Meeting of 3 May: the pier is closed in June.", "name": "meeting.txt"},
            ]
        },
    )

    text: str = Field(min_length=1, description="Markdown or plain text. At most 10 MB of JSON, and MAX_UPLOAD_MB.")


class UrlRequest(_Source):
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
    responses={**_WAITED, **responses(400, 401, 403, 404, 409, 413, 422, 503, 507)},
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
    return await stored(services, owner, body.name or _name_of(body.text), source, collection, response, wait)


@router.post(
    "/url",
    status_code=202,
    responses={**_WAITED, **responses(400, 401, 403, 404, 409, 413, 422, 502, 503, 504, 507)},
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
    if not services.settings.library.url_fetch:
        raise Forbidden("This server fetches no URLs (URL_FETCH=0). Download it and upload the file.",
                        code="url_fetch_off")  # fmt: skip
    async with services.fetcher.fetch(body.url) as fetched:
        return await stored(services, owner, body.name or fetched.name, fetched.file, collection, response, wait)


def _name_of(text: str) -> str:
    """A Markdown file's name from the first line that has words in it."""
    for line in text.lstrip()[:4000].splitlines():
        if words := _MARKS.sub(" ", line[:400]).replace("/", "-").replace("\\", "-").strip():
            short = words if len(words) <= _MAX_NAME else words[:_MAX_NAME].rsplit(" ", 1)[0] + "…"
            return f"{short}.md"
    return "text.md"
