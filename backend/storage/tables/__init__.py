"""The schema, one file per capability. Ids are prefixed UUIDv7 strings, times are milliseconds since 1970 (UTC).

Every row that belongs to an owner has the column `owner`. A test compares these tables with the migrations in
`migrations/versions`. Queries don't use the tables; they are plain SQL.
"""

from backend.storage.tables import conversations, library, prompts, runs, usage
from backend.storage.tables.base import metadata

__all__ = ["conversations", "library", "metadata", "prompts", "runs", "usage"]
