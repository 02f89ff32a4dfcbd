"""Documents as JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.events import clean_text
from backend.routers.times import Time, iso
from backend.routers.view import View
from backend.services.documents import MAX_NAME, Receipt
from backend.services.sweep import Swept
from backend.storage.documents import DocumentRow, VersionRow

_PROGRESS = "`done` of `total` passages embedded, `rate` of them a second, `seconds` spent per stage."
_DOCUMENT: dict[str, Any] = {
    "id": "doc_0193…",
    "collection_id": "col_0193…",
    "filename": "contract.pdf",
    "status": "ready",
    "version": "ver_0193…",
    "media_type": "application/pdf",
    "size": 48213,
    "sha256": "9f86d08…",
    "title": "Contract",
    "pages": 12,
    "chunks": 87,
    "progress": {"done": 87, "total": 87, "rate": 24.1, "seconds": {"parsing": 0.2, "embedding": 3.6}},
    "created_at": "2026-11-25T12:00:00.000Z",
    "updated_at": "2026-11-25T12:00:04.000Z",
}


class PendingVersion(View):
    """A new content on its way: until it is ready, the old one answers."""

    version: str
    status: str = Field(examples=["embedding"])
    reason_code: str | None = None
    reason: str | None = Field(None, description="Why it failed, or why it waits.")
    size: int
    sha256: str
    progress: dict[str, Any] = Field(description=_PROGRESS)


class Moving(View):
    """The document is being embedded anew for another collection; until then it is found where it is."""

    collection_id: str
    status: Literal["queued", "failed"]
    reason: str | None = None
    progress: dict[str, Any] = Field(description=_PROGRESS)


class Document(View):
    """An uploaded file. It can be searched when `status` is ready."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DOCUMENT]})

    id: str
    collection_id: str
    filename: str
    status: str = Field(
        description="queued, parsing, chunking, embedding, indexing, ready, failed or cancelled", examples=["ready"]
    )
    reason_code: str | None = Field(None, description="Why it failed, or why it waits, as a stable code.")
    reason: str | None = Field(None, description="Why it failed and what to do, or why it waits, in words.")
    version: str
    media_type: str | None = Field(None, description="Found out from the content, not from the name.")
    size: int = Field(description="Bytes.")
    sha256: str
    title: str | None = None
    language: str | None = Field(None, description="ISO 639-1, where it could be told.")
    pages: int | None = None
    chunks: int | None = Field(None, description="Searchable passages.")
    progress: dict[str, Any] = Field(description=_PROGRESS)
    pending: PendingVersion | None = Field(None, description="What is to replace the version that is searched.")
    moving: Moving | None = None
    created_at: Time
    updated_at: Time


class Replaced(Document):
    """A document whose content was sent. `unchanged`: it has these bytes already, or is about to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_DOCUMENT, "unchanged": True}]})

    unchanged: bool = False


class Uploaded(View):
    """What became of one file of an upload. `duplicate`: the same bytes were here already."""

    id: str | None = None
    filename: str
    status: str
    duplicate: bool = False
    reason_code: str | None = None
    reason: str | None = None


class Uploads(View):
    """One entry a file, in the order sent. `id` and `status` repeat the first one's, for uploads of one file."""

    id: str | None = None
    status: str
    documents: list[Uploaded]


class DocumentList(View):
    """A page of documents, newest first."""

    items: list[Document]
    next_cursor: str | None = None


class DocumentEvent(View):
    """One event of GET /documents/{id}/events: the document as it is now. The stream ends when nothing more happens by
    itself."""

    type: str = "document"
    document: Document


class DocumentText(View):
    """`text` is `[start:end]` of the canonical text, in Unicode code points."""

    document_id: str
    version: str
    start: int
    end: int
    text: str


class DocumentChange(BaseModel):
    """What of a document can be changed."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "contract 2026.pdf"}, {"collection_id": "col_0193…"}]},
    )

    name: str | None = Field(None, min_length=1, max_length=MAX_NAME, description="Another file name.")
    collection_id: str | None = Field(None, description="Move it there.")

    @field_validator("name", "collection_id")
    @classmethod
    def _line(cls, value: str | None) -> str | None:
        if value is not None and (value != clean_text(value) or not value.strip()):
            raise ValueError("must not be blank, nor hold NUL characters or lone surrogates")
        return value

    @model_validator(mode="after")
    def _something(self) -> "DocumentChange":
        if self.name is None and self.collection_id is None:
            raise ValueError("say what to change: name, collection_id, or both")
        return self


class Version(View):
    """One content that the document has, had, or is to have. Superseded ones can still be read at `/text?version=`."""

    version: str
    status: str = Field(description="queued, ready, failed, cancelled or superseded", examples=["superseded"])
    reason_code: str | None = None
    reason: str | None = None
    sha256: str
    size: int = Field(description="Bytes.")
    media_type: str | None = None
    title: str | None = None
    pages: int | None = None
    chunks: int | None = None
    created_at: Time


class VersionList(View):
    """Versions, newest first."""

    items: list[Version]


class DeletionReceipt(View):
    """What the deletion of a document removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "document_id": "doc_0193…",
                    "versions": 1,
                    "chunks_removed": 87,
                    "vectors_removed": 87,
                    "vectors_left": 0,
                    "file_removed": True,
                }
            ]
        }
    )

    document_id: str
    versions: int
    chunks_removed: int
    vectors_removed: int
    vectors_left: int = Field(description="Counted again afterwards: 0.")
    file_removed: bool


class SweepResult(View):
    """What a sweep found and put right: all zeros when everything agreed."""

    model_config = ConfigDict(json_schema_extra={"examples": [dict.fromkeys(Swept.__slots__, 0)]})

    documents_removed: int = Field(description="Half deleted before.")
    chunks_removed: int = Field(description="Of versions that nothing leads to.")
    terms_removed: int = Field(description="Entries of the lexical index without a passage.")
    vectors_removed: int = Field(description="Vectors without a passage.")
    files_removed: int = Field(description="Files without a version.")
    documents_queued: int = Field(description="Documents that lacked vectors or passages: they are indexed again.")


def document_of(row: DocumentRow) -> Document:
    """As JSON."""
    return Document(**_fields(row))


def replaced_of(row: DocumentRow, unchanged: bool) -> Replaced:
    """As JSON."""
    return Replaced(**_fields(row), unchanged=unchanged)


def _fields(row: DocumentRow) -> dict[str, Any]:
    pending, moving = row.pending, row.moving
    return {
        "id": row.id,
        "collection_id": row.collection_id,
        "filename": row.name,
        "status": row.status,
        "reason_code": row.reason_code,
        "reason": row.reason,
        "version": row.version,
        "media_type": row.media_type,
        "size": row.size,
        "sha256": row.sha256,
        "title": row.title,
        "language": row.language,
        "pages": row.pages,
        "chunks": row.chunks,
        "progress": row.progress,
        "pending": PendingVersion(**{n: getattr(pending, n) for n in PendingVersion.model_fields}) if pending else None,
        "moving": Moving(**{n: getattr(moving, n) for n in Moving.model_fields}) if moving else None,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def version_of(row: VersionRow) -> Version:
    """As JSON."""
    fields: dict[str, Any] = {n: getattr(row, n) for n in Version.model_fields}
    fields["created_at"] = iso(row.created_at)
    return Version(**fields)


def receipt_of(receipt: Receipt) -> DeletionReceipt:
    """As JSON."""
    return DeletionReceipt(**{n: getattr(receipt, n) for n in DeletionReceipt.model_fields})


def swept_of(swept: Swept) -> SweepResult:
    """As JSON."""
    return SweepResult(**{n: getattr(swept, n) for n in SweepResult.model_fields})
