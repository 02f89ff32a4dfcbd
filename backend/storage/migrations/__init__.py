"""Migrations, run by Alembic at start when the schema is behind."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(path: Path, revision: str = "head") -> None:
    """Bring the database at `path` to `revision`. One transaction a migration."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}".replace("%", "%%"))
    command.upgrade(config, revision)
