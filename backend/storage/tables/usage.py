"""Tables of calls of models, of reservations, and of what owners have spent."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text

from backend.storage.tables.base import id_column, metadata, owner_column, time_column

# Every call of a model, also of runs and sessions that were deleted later. Money is in micro-dollars (a millionth of a
# US dollar); null if the price is unknown. `price` is the price at that time.
# purpose: answer, condense, title, summary or embedding. status: completed, failed or cancelled.
calls = Table(
    "calls",
    metadata,
    id_column(),
    owner_column(),
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
    time_column("created_at"),
    Index(None, "owner", "created_at"),
    Index(None, "run_id"),
)

# What live runs may still spend of an owner's budget. A row is deleted when the calls are booked, or at the next start.
# `id` is the id of a run, or `res_...` for a call outside of runs.
reservations = Table(
    "reservations",
    metadata,
    id_column(),
    owner_column(),
    Column("amount", BigInteger, nullable=False),
    time_column("created_at"),
    Index(None, "owner"),
)

# The sums of `calls.cost` by owner and day (days since 1970, UTC), so that a budget check reads few rows.
spendings = Table(
    "spendings",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
)
