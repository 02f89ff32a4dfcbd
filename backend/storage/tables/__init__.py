"""The schema, one file a capability. Every module of this folder is imported here, so that `metadata` is whole.

Ids are prefixed UUIDv7 strings, times are integer milliseconds since 1970 (UTC). Every row of a principal carries
`owner`. Migrations are in `migrations/versions`; a test compares the two. Nothing else reads these tables: queries are
plain SQL.
"""

import importlib
import pkgutil

from backend.storage.tables.base import metadata

__all__ = ["metadata"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
