"""The metadata of all tables, and columns that many tables have."""

from sqlalchemy import BigInteger, Column, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> Column[str]:
    """The primary key: a prefixed UUIDv7 string."""
    return Column("id", Text, primary_key=True)


def owner_column() -> Column[str]:
    """The owner of the row."""
    return Column("owner", Text, nullable=False)


def time_column(name: str, nullable: bool = False) -> Column[int]:
    """A time, in milliseconds since 1970 (UTC)."""
    return Column(name, BigInteger, nullable=nullable)
