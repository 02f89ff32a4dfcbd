"""Encoders of the run log, one file a dialect. Each is a stateless function of an event's JSON line."""
