"""Migrations. Alembic runs them at the start if the schema is old. An empty database gets `schema.sql` instead."""

from pathlib import Path

SCHEMA = Path(__file__).parent / "schema.sql"
"""The SQL of a new database. `dump.py` writes it from the migrations; a test compares the two."""


def upgrade(path: Path, revision: str = "head") -> None:
    """Migrate the database at `path` to `revision`, with one transaction per migration."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}".replace("%", "%%"))
    command.upgrade(config, revision)
