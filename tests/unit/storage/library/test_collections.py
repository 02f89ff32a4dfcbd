"""Collections in the database."""

import asyncio

from backend.storage.engine.database import Database
from backend.storage.library.collections import Collections


async def test_an_owners_default_collection_is_made_once(database: Database) -> None:
    collections = Collections(database)
    made = await asyncio.gather(*(collections.default("a") for _ in range(10)))
    assert len({c.id for c in made}) == 1
    assert (await collections.default("b")).id != made[0].id
