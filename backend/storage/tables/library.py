"""Tables of collections, documents, their versions and chunks, and jobs. Each collection also has an FTS5 table of
terms: see `storage/library/lexical.py`.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from backend.storage.tables.base import id_column, metadata, owner_column, time_column

# `generation` counts embeddings. A new embedding is built while the old one is used; then `generation` and
# `fingerprint` change in one commit.
collections = Table(
    "collections",
    metadata,
    id_column(),
    owner_column(),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text),
    Column("generation", Integer, nullable=False),
    time_column("created_at"),
    UniqueConstraint("owner", "name"),
)

# Searches use only active_version. pending_version is being read, or it failed or was cancelled.
documents = Table(
    "documents",
    metadata,
    id_column(),
    owner_column(),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("active_version", Text),
    Column("pending_version", Text),
    time_column("created_at"),
    time_column("updated_at"),
    Index(None, "owner", "id"),
    Index(None, "collection_id", "id"),
)

# Of superseded versions only the text is kept, so that old citations can still be looked up.
# The version's chunks have the numbers from `first_chunk`, `chunks` of them; numbers are never used twice.
document_versions = Table(
    "document_versions",
    metadata,
    id_column(),
    owner_column(),
    Column("document_id", Text, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
    Column("collection_id", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason_code", Text),
    Column("reason", Text),
    Column("media_type", Text),
    Column("title", Text),
    Column("language", Text),
    Column("pages", Integer),
    Column("first_chunk", BigInteger),
    Column("chunks", Integer),
    time_column("created_at"),
    Column("map", JSON),
    Column("text", Text),
    Index(
        "uq_document_versions_collection_id_sha256",
        "collection_id",
        "sha256",
        unique=True,
        sqlite_where=text("status != 'superseded'"),
        postgresql_where=text("status != 'superseded'"),
    ),
    Index(None, "document_id"),
)

# `text` is a copy of the chunk's part of the version's text, because cutting it out of a long text costs a millisecond.
# `after` is the white space before the next chunk. `spans` has start and end of each sentence as little-endian uint32.
chunks = Table(
    "chunks",
    metadata,
    Column("n", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("version_id", Text, ForeignKey("document_versions.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("heading", Text),
    Column("context", Text),
    Column("text", Text, nullable=False),
    Column("after", Text),
    Column("spans", LargeBinary, nullable=False),
    Index(None, "version_id"),
)

# `vectors` are rows of int8: the vector of the chunk, then one per sentence. `embedding` is the model's fingerprint.
chunk_vectors = Table(
    "chunk_vectors",
    metadata,
    Column("n", BigInteger, ForeignKey("chunks.n", ondelete="CASCADE"), primary_key=True),
    Column("embedding", Text, primary_key=True),
    Column("vectors", LargeBinary, nullable=False),
)

# Numbers that must not decrease when rows are deleted.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# kind: ingest (a document's version), embed (a collection's next generation) or move (a document into this
# collection). stage: queued, ready, failed or cancelled. Before `lease_until` no other process may take the job.
jobs = Table(
    "jobs",
    metadata,
    id_column(),
    owner_column(),
    Column("kind", Text, nullable=False),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("document_id", Text, ForeignKey("documents.id", ondelete="CASCADE")),
    Column("version_id", Text),
    Column("stage", Text, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("instance_id", Text),
    time_column("lease_until"),
    Column("reason_code", Text),
    Column("reason", Text),
    time_column("created_at"),
    time_column("updated_at"),
    Index(None, "stage", "owner", "lease_until"),
    Index(None, "document_id"),
    Index(None, "collection_id"),
)
