"""Where data is stored, and for how long."""

from pathlib import Path

from pydantic import Field, field_validator

from backend.config.fields import SettingsGroup

FILES = "files"
"""The folder in DATA_DIR with the uploaded files."""


class StorageSettings(SettingsGroup):
    """Where data is stored."""

    data_dir: Path = Field(Path("data"), description="Folder for everything that is stored: database, vectors, files.")
    database_url: str | None = Field(
        None, description="`sqlite:///path`. Unset: streamforge.db in DATA_DIR. Other databases are not supported yet."
    )
    chroma_url: str | None = Field(None, description="Not supported yet: leave it unset. Vectors are in DATA_DIR.")
    event_retention_hours: float = Field(
        24.0,
        gt=0,
        le=1_000_000,
        description="Hours for which a finished run's events are kept; later it replays as a snapshot.",
    )

    @field_validator("database_url")
    @classmethod
    def _check_sqlite(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith("sqlite:///") or value[10:] in ("", ":memory:")):
            raise ValueError("must be sqlite:///path (other databases are not supported yet), or unset")
        return value

    @field_validator("chroma_url")
    @classmethod
    def _check_chroma(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("must be unset: a Chroma server is not supported yet, vectors lie in DATA_DIR")
        return value

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url is None:
            return self.data_dir / "streamforge.db"
        return Path(self.database_url.removeprefix("sqlite:///"))
