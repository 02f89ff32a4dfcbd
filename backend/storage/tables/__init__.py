"""The schema, one file per capability. Ids are prefixed UUIDv7 strings, times are milliseconds since 1970 (UTC).

Every row that belongs to an owner has the column `owner`. A test compares these tables with the migrations in
`migrations/versions`. Queries don't use the tables; they are plain SQL. Every module of this
folder is imported here, so that `metadata` is whole.
"""

import importlib
import pkgutil

from backend.storage.tables.base import metadata

__all__ = ["metadata"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
