"""The most bytes that a request may have. A router whose requests are larger sets MAX_BODY, or has `max_body`."""

JSON_BODY = 1_000_000
"""Bytes of an ordinary JSON request; far more than a message may have."""
TEXT_BODY = 10_000_000
"""Bytes of a JSON request that brings a text or images. To decode one holds every stream, 3 to 7 ms a megabyte."""
