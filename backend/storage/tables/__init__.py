"""The schema, one file a capability. Ids are prefixed UUIDv7 strings, times are integer milliseconds since 1970 (UTC).

Every row of a principal carries `owner`. Migrations are in `migrations/versions`; a test compares the two. Nothing else
reads these tables: queries are plain SQL.
"""

from backend.storage.tables import conversations, library, prompts, runs, usage
from backend.storage.tables.base import metadata

__all__ = ["conversations", "library", "metadata", "prompts", "runs", "usage"]
