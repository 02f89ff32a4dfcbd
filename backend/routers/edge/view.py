"""The base class of response bodies."""

from typing import Any

from pydantic import BaseModel, ConfigDict, WithJsonSchema


class View(BaseModel):
    """The body of a response. Pydantic builds its serializer when the first one is sent, not at the server's start."""

    model_config = ConfigDict(defer_build=True)


DEPRECATED: dict[str, Any] = {"deprecated": True}
"""`json_schema_extra` of a field with an old name. (Pydantic's own `deprecated` also warns whenever we read it.)"""
SCHEMA = "x-schema"
"""The keyword that `edge/openapi.py` replaces by a `$ref`: Pydantic takes no foreign references."""


def schema_of(name: str) -> WithJsonSchema:
    """Describes a field that has stored JSON, which is returned as it is, by a schema of OpenAPI's components."""
    return WithJsonSchema({SCHEMA: name})
