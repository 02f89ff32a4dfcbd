"""Collections: create, list, rename, re-embed, delete."""

import re
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.kit.text import clean_text
from backend.routers.edge.examples import NO_COLLECTION
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.progress import StoredProgress
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View
from backend.services.library.collections import CollectionDetails

router = APIRouter(prefix="/collections", tags=["collections"], route_class=OwnRoute)
_EXISTS = ProblemExample(
    409, "collection_exists", "You have a collection of this name already: col_0193…. Choose another name."
)
_EMBEDDING = ProblemExample(
    409,
    "embedding_running",
    "The collection is being embedded by another model. Cancel that first: DELETE /collections/{id}/embed.",
)
TAG = {"name": "collections", "description": "Named sets of documents, each embedded with one model."}
_ID = re.compile(r"col_[0-9a-f]{32}")
CollectionId = Annotated[str, Path(description="A collection's id or name, see GET /collections.")]


class Embedding(View):
    """A re-embedding of a collection. Searches use the present vectors until it is done."""

    model: str = Field(examples=["openai/text-embedding-3-small"])
    status: str = Field(description="queued, embedding, indexing or failed", examples=["embedding"])
    reason_code: str | None = None
    reason: str | None = Field(None, description="Why it failed or waits.")
    progress: StoredProgress = Field(description="`done` of `total` chunks are embedded, `rate` chunks per second.")


class Collection(View):
    """A named set of documents, embedded with one model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "col_0193…",
                    "name": "contracts",
                    "documents": 12,
                    "chunks": 940,
                    "fingerprint": "minilm/all-MiniLM-L6-v2:384",
                    "generation": 1,
                    "embedding": None,
                    "created_at": "2026-11-25T12:00:00.000Z",
                }
            ]
        }
    )

    id: str
    name: str
    documents: int
    chunks: int = Field(description="Number of searchable chunks.")
    fingerprint: str | None = Field(
        None, description="`provider/model:dimension` of its vectors. Unset while the collection is empty."
    )
    generation: int = Field(description="Number of the present embedding; it grows with each re-embedding.")
    embedding: Embedding | None = Field(None, description="The re-embedding, while it runs.")
    created_at: Time


class CollectionList(View):
    """Collections, by name."""

    items: list[Collection]


class CollectionName(BaseModel):
    """The name of a collection. It must differ from the names of your other collections."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "contracts"}]})

    name: str = Field(min_length=1, max_length=100)

    @field_validator("name")
    @classmethod
    def _line(cls, value: str) -> str:
        value = " ".join(clean_text(value).split())
        if not value:
            raise ValueError("must not be blank")
        if _ID.fullmatch(value):
            raise ValueError("must not look like an id: collections are addressed by id or name")
        return value


class EmbedRequest(BaseModel):
    """The embedding model."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "openai/text-embedding-3-small"}]}
    )

    model: str = Field(min_length=1, max_length=200, description="`provider/model`, as for EMBEDDING_MODEL.")


class CollectionReceipt(View):
    """What was removed with a collection."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "collection_id": "col_0193…",
                    "documents": 12,
                    "chunks_removed": 940,
                    "vectors_removed": 940,
                    "vectors_left": 0,
                    "files_removed": 12,
                }
            ]
        }
    )

    collection_id: str
    documents: int
    chunks_removed: int
    vectors_removed: int
    vectors_left: int = Field(description="Vectors that are left, counted again afterwards: 0.")
    files_removed: int


@router.get("", responses=responses(401), summary="Your collections")
async def list_collections(services: ServicesDep, owner: Owner) -> CollectionList:
    """Returns your collections, sorted by name. Uploads that name no collection go into `default`."""
    return CollectionList(
        items=[_collection_view(details) for details in await services.library.collections.all(owner)]
    )


@router.post("", status_code=201, responses=responses(400, 401, 403, _EXISTS, 422), summary="Create a collection")
async def create_collection(body: CollectionName, services: ServicesDep, owner: Owner) -> Collection:
    """Creates an empty collection. When it gets its first document, EMBEDDING_MODEL becomes its embedding model."""
    return _collection_view(await services.library.collections.create(owner, body.name))


@router.get("/{collection_id}", responses=responses(401, NO_COLLECTION), summary="One collection")
async def get_collection(collection_id: CollectionId, services: ServicesDep, owner: Owner) -> Collection:
    """Returns the collection's size, and the progress of a re-embedding."""
    return _collection_view(await services.library.collections.get(owner, collection_id))


@router.patch(
    "/{collection_id}", responses=responses(400, 401, 403, NO_COLLECTION, _EXISTS, 422), summary="Rename a collection"
)
async def rename_collection(
    collection_id: CollectionId, body: CollectionName, services: ServicesDep, owner: Owner
) -> Collection:
    """Changes the name; nothing else changes."""
    return _collection_view(await services.library.collections.rename(owner, collection_id, body.name))


@router.delete("/{collection_id}", responses=responses(401, 403, NO_COLLECTION, 503), summary="Delete a collection")
async def delete_collection(collection_id: CollectionId, services: ReadyServices, owner: Owner) -> CollectionReceipt:
    """Deletes the collection with all its documents. The next upload creates `default` again if needed."""
    receipt = await services.library.collections.delete(owner, collection_id)
    return CollectionReceipt(
        collection_id=receipt.collection_id,
        documents=receipt.documents,
        chunks_removed=receipt.removed.chunks,
        vectors_removed=receipt.removed.vectors,
        vectors_left=receipt.removed.vectors_left,
        files_removed=receipt.removed.files,
    )


@router.post(
    "/{collection_id}/embed",
    status_code=202,
    responses=responses(400, 401, 403, NO_COLLECTION, _EMBEDDING, 422, 502, 503),
    summary="Re-embed a collection with another model",
)
async def embed_collection(
    collection_id: CollectionId, body: EmbedRequest, services: ReadyServices, owner: Owner
) -> Collection:
    """Searches use the present vectors until every chunk is embedded; then one commit switches to the new ones.
    `embedding` shows the progress.
    """
    return _collection_view(await services.library.collections.embed(owner, collection_id, body.model))


@router.delete(
    "/{collection_id}/embed", responses=responses(401, 403, NO_COLLECTION, 503), summary="Stop a re-embedding"
)
async def cancel_embedding(collection_id: CollectionId, services: ReadyServices, owner: Owner) -> Collection:
    """Stops the re-embedding; the collection stays unchanged. If none is running, this does nothing."""
    return _collection_view(await services.library.collections.cancel_embed(owner, collection_id))


def _collection_view(details: CollectionDetails) -> Collection:
    row, embedding = details.row, details.embedding
    return Collection(
        id=row.id,
        name=row.name,
        documents=details.counts.documents,
        chunks=details.counts.chunks,
        fingerprint=row.fingerprint,
        generation=row.generation,
        embedding=Embedding(
            model=embedding.model,
            status=embedding.stage,
            reason_code=embedding.reason_code,
            reason=embedding.reason,
            progress=embedding.progress,
        )
        if embedding is not None
        else None,
        created_at=iso(row.created_at),
    )
