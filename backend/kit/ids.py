"""Ids of stored things."""

import uuid_utils


def new_id(prefix: str) -> str:
    """`prefix_` and a UUIDv7 in hex: sorts by creation, holds no ':'."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
