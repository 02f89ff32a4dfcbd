"""Ids of stored things."""

import uuid_utils


def new_id(prefix: str) -> str:
    """A new id: `prefix_` and a UUIDv7 in hex. Ids sort by creation and contain no ':'."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def new_ids(*prefixes: str) -> tuple[str, ...]:
    """One new id for each of the prefixes."""
    return tuple(f"{prefix}_{uuid_utils.uuid7().hex}" for prefix in prefixes)
