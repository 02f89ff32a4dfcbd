"""Tables of prompts, their versions and labels."""

from sqlalchemy import JSON, Column, ForeignKey, Integer, Table, Text, UniqueConstraint

from backend.storage.tables.base import id_column, metadata, owner_column, time_column

# Templates. A version never changes; labels (like `production`) point to one.
prompts = Table(
    "prompts",
    metadata,
    id_column(),
    owner_column(),
    Column("name", Text, nullable=False),
    time_column("created_at"),
    time_column("updated_at"),
    UniqueConstraint("owner", "name"),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("prompt_id", Text, ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    owner_column(),
    Column("content", JSON, nullable=False),
    Column("note", Text),
    time_column("created_at"),
)

prompt_labels = Table(
    "prompt_labels",
    metadata,
    Column("prompt_id", Text, ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("label", Text, primary_key=True),
    owner_column(),
    Column("n", Integer, nullable=False),
)
