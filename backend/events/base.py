"""What every event has."""

import msgspec


class Event(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """Base of every event. `seq` 0 means: not in a log yet."""

    seq: int = 0
