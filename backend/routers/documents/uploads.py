"""Documents that aren't uploaded as files: a text, and what a URL names."""

import io
import re
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.errors import Forbidden
from backend.kit.text import clean_text
from backend.routers.documents.documents import Collection, Uploads, stored
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Owner, ReadyServices

router = APIRouter(prefix="/documents", tags=["documents"])

Wait = Annotated[bool, Query(description="Answer when it can be searched, or has failed.")]
_WAITED = {200: {"model": Uploads, "description": "With wait=true: the document is ready or failed."}}
_MAX_NAME = 60
_MARKS = re.compile(r"[\s#>*_`=~-]+")


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=255, description="What to call it, as a file's name.")

    @field_validator("*")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        if value is not None and value != clean_text(value):
            raise ValueError("must not hold NUL characters or lone surrogates")
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value


class TextRequest(_Source):
    """A text to store. A name ending in `.txt` makes it plain text; without a name it is Markdown."""

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
    """A page or a file to fetch and store."""

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
    summary="Store a text",
)
async def add_text(
    body: TextRequest,
    services: ReadyServices,
    owner: Owner,
    response: Response,
    collection: Collection = None,
    wait: Wait = False,
) -> Uploads:
    """As if it were uploaded as a file. The same text is the same document."""
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
    """Fetch what a URL names, once, and store it as if it were uploaded. Answers when it has been fetched.

    Only public addresses, ports 80 and 443, and at most 5 redirects; `URL_ALLOWED_HOSTS` names exceptions. Scripts of
    the page are not run. Its name is that of `Content-Disposition`, else the last part of the path.
    """
    if not services.settings.knowledge.url_fetch:
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
