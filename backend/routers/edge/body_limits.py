"""The maximum size of requests. A router with larger requests has `MAX_BODY` or `max_body`."""

JSON_BODY = 1_000_000
"""Maximum bytes of an ordinary JSON request; much more than a message needs."""
TEXT_BODY = 10_000_000
"""Maximum bytes of a JSON request with a text or images. Decoding it stops all streams for 3 to 7 ms per megabyte."""
