"""Ids and times of stored things."""

import time
from datetime import UTC, datetime

import uuid_utils


def new_id(prefix: str) -> str:
    """`prefix_` and a UUIDv7 in hex: sorts by creation, holds no ':'."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def iso(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
