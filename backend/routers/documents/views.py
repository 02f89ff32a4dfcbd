"""The schemas of documents, and the functions that make them from rows."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.kit.text import clean_text
from backend.routers.edge.bounds import IdText
from backend.routers.edge.progress import StoredProgress
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import DEPRECATED, View
from backend.services.library.documents import DocumentReceipt, DocumentRow, VersionRow
from backend.services.library.file_names import MAX_NAME
from backend.services.library.sweep import SweepReport

DocumentId = Annotated[
    str,
    Path(description="A document's id: the `id` in the response to its upload, or in GET /documents."),
]
_PROGRESS = "`done` of `total` chunks are embedded, `rate` chunks per second, `seconds` spent in each stage."
_SAME_NAME = "The same as `name`."
_DOCUMENT: dict[str, Any] = {
    "id": "doc_0193…",
    "collection_id": "col_0193…",
    "name": "contract.pdf",
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
    """A new version that is not ready yet. Until then, searches use the old one."""

    version: str
    status: str = Field(examples=["embedding"])
    reason_code: str | None = None
    reason: str | None = Field(None, description="Why it failed or waits.")
    size: int
    sha256: str
    progress: StoredProgress = Field(description=_PROGRESS)


class Moving(View):
    """The document is being re-embedded for another collection. Until that is done, searches find it in its present
    one.
    """

    collection_id: str
    status: Literal["queued", "failed"]
    reason: str | None = None
    progress: StoredProgress = Field(description=_PROGRESS)


class Document(View):
    """An uploaded file. It can be searched when `status` is ready."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DOCUMENT]})

    id: str
    collection_id: str
    name: str = Field(description="The name of the file.")
    filename: str = Field(description=_SAME_NAME, json_schema_extra=DEPRECATED)
    status: str = Field(
        description="queued, parsing, chunking, embedding, indexing, ready, failed or cancelled", examples=["ready"]
    )
    reason_code: str | None = Field(None, description="Why it failed or waits, as a code that never changes.")
    reason: str | None = Field(None, description="Why it failed and what to do, or why it waits, as text.")
    version: str
    media_type: str | None = Field(None, description="Detected from the content, not from the name.")
    size: int = Field(description="Size in bytes.")
    sha256: str
    title: str | None = None
    language: str | None = Field(None, description="Language code (ISO 639-1), if it could be detected.")
    pages: int | None = None
    chunks: int | None = Field(None, description="Number of searchable chunks.")
    progress: StoredProgress = Field(description=_PROGRESS)
    pending: PendingVersion | None = Field(None, description="The version that will replace the searchable one.")
    moving: Moving | None = None
    created_at: Time
    updated_at: Time


class Replaced(Document):
    """A document whose content was replaced. `unchanged`: it has these bytes already, or a pending version has them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_DOCUMENT, "unchanged": True}]})

    unchanged: bool = False


class Uploaded(View):
    """Result for one file of an upload. `duplicate`: the collection had these bytes already."""

    id: str | None = None
    name: str
    filename: str = Field(description=_SAME_NAME, json_schema_extra=DEPRECATED)
    status: str
    duplicate: bool = False
    reason_code: str | None = None
    reason: str | None = None


class Uploads(View):
    """One entry per file, in the order of the upload. `id` and `status` are those of the first file."""

    id: str | None = None
    status: str
    items: list[Uploaded]
    documents: list[Uploaded] = Field(description="The same as `items`.", json_schema_extra=DEPRECATED)


class DocumentList(View):
    """A page of documents, newest first."""

    items: list[Document]
    next_cursor: str | None = None


class DocumentEvent(View):
    """One event of GET /documents/{id}/events: the document as it is now. The stream ends when the document is
    ready, failed or cancelled.
    """

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
    """Changes of a document."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "contract 2026.pdf"}, {"collection": "contracts"}]},
    )

    name: str | None = Field(None, min_length=1, max_length=MAX_NAME, description="The new file name.")
    collection: IdText | None = Field(None, description="Id or name of the collection to move the document to.")
    collection_id: IdText | None = Field(None, description="The same as `collection`.", json_schema_extra=DEPRECATED)

    @field_validator("name", "collection", "collection_id")
    @classmethod
    def _line(cls, value: str | None) -> str | None:
        if value is not None and (value != clean_text(value) or not value.strip()):
            raise ValueError("must not be blank, nor hold NUL characters or lone surrogates")
        return value

    @model_validator(mode="after")
    def _check_any_change(self) -> "DocumentChange":
        if self.collection is not None and self.collection_id is not None:
            raise ValueError("collection_id is the old name of collection: send one of them")
        self.collection = self.collection or self.collection_id
        if self.name is None and self.collection is None:
            raise ValueError("say what to change: name, collection, or both")
        return self


class Version(View):
    """A version of a document: present, old or pending. The text of old versions is still available at
    `/text?version=`.
    """

    version: str
    status: str = Field(description="queued, ready, failed, cancelled or superseded", examples=["superseded"])
    reason_code: str | None = None
    reason: str | None = None
    sha256: str
    size: int = Field(description="Size in bytes.")
    media_type: str | None = None
    title: str | None = None
    pages: int | None = None
    chunks: int | None = None
    created_at: Time


class VersionList(View):
    """Versions, newest first."""

    items: list[Version]


class DeletionReceipt(View):
    """What was removed with a document."""

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
    vectors_left: int = Field(description="Vectors that are left, counted again afterwards: 0.")
    file_removed: bool


class SweepResult(View):
    """What a sweep found and repaired. All numbers are zero if there was nothing to repair."""

    model_config = ConfigDict(json_schema_extra={"examples": [dict.fromkeys(SweepReport.__slots__, 0)]})

    documents_removed: int = Field(description="Number of documents whose deletion was not finished.")
    chunks_removed: int = Field(description="Number of removed chunks of versions that no document has.")
    terms_removed: int = Field(description="Number of removed entries of the lexical index without a chunk.")
    vectors_removed: int = Field(description="Number of removed vectors without a chunk.")
    files_removed: int = Field(description="Number of removed files without a version.")
    documents_queued: int = Field(
        description="Number of documents with missing vectors or chunks; they are indexed again."
    )


def document_view(row: DocumentRow) -> Document:
    """A document as the API returns it."""
    return Document(**_fields(row))


def replaced_view(row: DocumentRow, unchanged: bool) -> Replaced:
    """A document whose content was replaced, as the API returns it."""
    return Replaced(**_fields(row), unchanged=unchanged)


def _fields(row: DocumentRow) -> dict[str, Any]:
    pending, moving = row.pending, row.moving
    return {
        "id": row.id,
        "collection_id": row.collection_id,
        "name": row.name,
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


def version_view(row: VersionRow) -> Version:
    """A version as the API returns it."""
    fields: dict[str, Any] = {n: getattr(row, n) for n in Version.model_fields}
    fields["created_at"] = iso(row.created_at)
    return Version(**fields)


def receipt_view(receipt: DocumentReceipt) -> DeletionReceipt:
    """What a deletion removed, as the API returns it."""
    return DeletionReceipt(**{n: getattr(receipt, n) for n in DeletionReceipt.model_fields})


def sweep_view(report: SweepReport) -> SweepResult:
    """What a sweep did, as the API returns it."""
    return SweepResult(**{n: getattr(report, n) for n in SweepResult.model_fields})
