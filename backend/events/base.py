"""The base class of events."""

import msgspec


class Event(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """Base of every event. `seq` is 0 until a log has the event."""

    seq: int = 0
