"""The script that Alembic runs: one connection, one transaction."""

from alembic import context
from sqlalchemy import create_engine

from backend.storage.tables import metadata

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
