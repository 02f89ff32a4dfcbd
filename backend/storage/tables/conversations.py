"""Tables of sessions, their messages, images and summaries."""

from sqlalchemy import JSON, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from backend.storage.tables.base import id_column, metadata, owner_column, time_column

sessions = Table(
    "sessions",
    metadata,
    id_column(),
    owner_column(),
    Column("title", Text, nullable=False),
    Column("head_message_id", Text),
    Column("settings", JSON, nullable=False),
    Column("pinned", Integer, nullable=False, server_default="0"),
    Column("archived", Integer, nullable=False, server_default="0"),
    time_column("created_at"),
    time_column("updated_at"),
    Index(None, "owner", "archived", "pinned", "updated_at", "id"),
)

# A tree: parent_id leads to the root; the session's head_message_id is the last message of the active path. parent_id
# is no foreign key, because a message is stored before the answer that it follows, if that answer is still live.
messages = Table(
    "messages",
    metadata,
    id_column(),
    owner_column(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", Text),
    Column("run_id", Text),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("retrieval", JSON),
    Column("model", Text),
    Column("prompt", JSON),
    time_column("created_at"),
    Index(None, "session_id", "created_at"),
    Index(None, "session_id", "parent_id"),
)

# Images of messages; the parts of messages have their ids. An edited message may use the images of the earlier one.
images = Table(
    "images",
    metadata,
    id_column(),
    owner_column(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("media_type", Text, nullable=False),
    time_column("created_at"),
    Column("data", LargeBinary, nullable=False),
    Index(None, "session_id"),
)

# A summary covers a conversation up to and including a message. For conversations that are too long for a model.
summaries = Table(
    "summaries",
    metadata,
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    owner_column(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("model", Text, nullable=False),
    Column("text", Text, nullable=False),
    time_column("created_at"),
    Index(None, "session_id"),
)

# What a user thinks of an answer.
feedback = Table(
    "feedback",
    metadata,
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    owner_column(),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("rating", Text, nullable=False),
    Column("comment", Text),
    time_column("updated_at"),
    Index(None, "session_id"),
)

# The texts of messages without reasoning, sources and marks. Their FTS5 index needs a number for each text that doesn't
# change, as SQLite's own number of a message may (storage/conversations/message_texts.py).
message_texts = Table(
    "message_texts",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    owner_column(),
    Column("text", Text, nullable=False),
    UniqueConstraint("message_id"),
)
