"""Ids of stored things."""

import uuid_utils


def new_id(prefix: str) -> str:
    """`prefix_` and a UUIDv7 in hex: sorts by creation, holds no ':'."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def new_ids(*prefixes: str) -> tuple[str, ...]:
    """One new id for each of the prefixes."""
    return tuple(f"{prefix}_{uuid_utils.uuid7().hex}" for prefix in prefixes)
