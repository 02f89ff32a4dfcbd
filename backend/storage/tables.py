"""The schema. Ids are prefixed UUIDv7 strings, times are integer milliseconds since 1970 (UTC).

Every row of a principal carries `owner`. Migrations are in `migrations/versions`; a test compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _owner() -> Column[str]:
    return Column("owner", Text, nullable=False)


def _time(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


sessions = Table(
    "sessions",
    metadata,
    _id(),
    _owner(),
    Column("title", Text, nullable=False),
    Column("head_message_id", Text),
    Column("settings", JSON, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    Index(None, "owner", "updated_at", "id"),
)

# A tree: parent_id leads to the root, the session's head_message_id is the tip of the active path. parent_id is no
# foreign key: a queued message is stored before the answer it follows.
messages = Table(
    "messages",
    metadata,
    _id(),
    _owner(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", Text),
    Column("run_id", Text),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("retrieval", JSON),
    Column("model", Text),
    Column("prompt", JSON),
    _time("created_at"),
    Index(None, "session_id", "created_at"),
    Index(None, "session_id", "parent_id"),
)

# Pictures that messages show: their parts name them. An edited message may show those of the one before.
images = Table(
    "images",
    metadata,
    _id(),
    _owner(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("media_type", Text, nullable=False),
    _time("created_at"),
    Column("data", LargeBinary, nullable=False),
    Index(None, "session_id"),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    _owner(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("user_message_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", JSON),
    Column("status", Text, nullable=False),
    Column("error", JSON),
    Column("usage", JSON),
    Column("instance_id", Text, nullable=False),
    _time("lease_until"),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    _time("started_at"),
    _time("finished_at", nullable=True),
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "session_id"),
    Index(None, "status", "lease_until"),
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("v", Integer, nullable=False),
    Column("lines", LargeBinary, nullable=False),
)

# `generation` counts embeddings: a new one is built beside the old, then this and `fingerprint` change in one commit.
collections = Table(
    "collections",
    metadata,
    _id(),
    _owner(),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text),
    Column("generation", Integer, nullable=False),
    _time("created_at"),
    UniqueConstraint("owner", "name"),
)

# Found in searches through active_version alone; pending_version is being read, or failed, or was cancelled.
documents = Table(
    "documents",
    metadata,
    _id(),
    _owner(),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("active_version", Text),
    Column("pending_version", Text),
    _time("created_at"),
    _time("updated_at"),
    Index(None, "owner", "id"),
    Index(None, "collection_id", "id"),
)

# Superseded versions keep their text, so that old citations can still be looked up, and nothing else.
# `first_chunk` is the number of the first of `chunks` chunks; numbers are never used twice.
document_versions = Table(
    "document_versions",
    metadata,
    _id(),
    _owner(),
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
    _time("created_at"),
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

# `text` is the slice of the version's text (cutting it out of a long one costs a millisecond), `after` the white space
# up to the next chunk, `spans` where its sentences stand, as pairs of little-endian uint32.
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

# Rows of int8, a chunk's own vector first, then those of its sentences; `embedding` is the fingerprint of the model.
chunk_vectors = Table(
    "chunk_vectors",
    metadata,
    Column("n", BigInteger, ForeignKey("chunks.n", ondelete="CASCADE"), primary_key=True),
    Column("embedding", Text, primary_key=True),
    Column("vectors", LargeBinary, nullable=False),
)

# What no row's deletion may set back.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# kind: ingest (of a document's version), embed (a collection's next generation) or move (of a document into this
# collection). stage: queued, ready, failed or cancelled; before `lease_until` nobody else may take it.
jobs = Table(
    "jobs",
    metadata,
    _id(),
    _owner(),
    Column("kind", Text, nullable=False),
    Column("collection_id", Text, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("document_id", Text, ForeignKey("documents.id", ondelete="CASCADE")),
    Column("version_id", Text),
    Column("stage", Text, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("instance_id", Text),
    _time("lease_until"),
    Column("reason_code", Text),
    Column("reason", Text),
    _time("created_at"),
    _time("updated_at"),
    Index(None, "stage", "owner", "lease_until"),
    Index(None, "document_id"),
    Index(None, "collection_id"),
)

# Every call of a model, also of runs and sessions that were deleted since. Money is in micro-dollars (a millionth of a
# US dollar), null where a price is unknown; `price` is what was known of it at the time.
# purpose: answer, condense, title, summary or embedding. status: completed, failed or cancelled.
calls = Table(
    "calls",
    metadata,
    _id(),
    _owner(),
    Column("run_id", Text),
    Column("session_id", Text),
    Column("purpose", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("estimated", Integer, nullable=False),
    Column("price", JSON),
    Column("cost", BigInteger),
    _time("created_at"),
    Index(None, "owner", "created_at"),
    Index(None, "run_id"),
)

# What live runs may still spend of an owner's budget. A run's row goes when its calls are booked, or at the next start.
reservations = Table(
    "reservations",
    metadata,
    Column("run_id", Text, primary_key=True),
    _owner(),
    Column("amount", BigInteger, nullable=False),
    _time("created_at"),
    Index(None, "owner"),
)

# The costs in `calls` by the day they were booked (days since 1970, UTC), so that a budget is looked up in few rows.
spendings = Table(
    "spendings",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
)

# Templates. A version never changes; labels (like `production`) point to one.
prompts = Table(
    "prompts",
    metadata,
    _id(),
    _owner(),
    Column("name", Text, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("owner", "name"),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("prompt_id", Text, ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _owner(),
    Column("content", JSON, nullable=False),
    Column("note", Text),
    _time("created_at"),
)

prompt_labels = Table(
    "prompt_labels",
    metadata,
    Column("prompt_id", Text, ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("label", Text, primary_key=True),
    _owner(),
    Column("n", Integer, nullable=False),
)

# What was said up to and with a message, in short: for conversations that are longer than a model's window.
summaries = Table(
    "summaries",
    metadata,
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    _owner(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("model", Text, nullable=False),
    Column("text", Text, nullable=False),
    _time("created_at"),
    Index(None, "session_id"),
)
