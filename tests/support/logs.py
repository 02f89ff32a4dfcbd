"""A logger that remembers what it was told, however logging is configured."""

from collections.abc import Callable
from typing import Any

LogLine = tuple[str, str, dict[str, Any]]


class LogRecorder:
    """Stands in for a module's `log`. `lines` has level, event and fields of each call."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((level, event, fields))

    @property
    def events(self) -> list[str]:
        """The events, in order."""
        return [event for _, event, _ in self.lines]
