"""Tables of runs and their stored events."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from backend.storage.tables.base import id_column, metadata, owner_column, time_column

runs = Table(
    "runs",
    metadata,
    id_column(),
    owner_column(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("user_message_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", JSON),
    Column("status", Text, nullable=False),
    Column("error", JSON),
    Column("usage", JSON),
    Column("instance_id", Text, nullable=False),
    time_column("lease_until"),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    time_column("started_at"),
    time_column("finished_at", nullable=True),
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "session_id"),
    Index(None, "owner", "started_at", "id"),
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
