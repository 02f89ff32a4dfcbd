"""The OpenAPI document: FastAPI's own, with the stream's events as schemas."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from backend.events import AnyEvent
from backend.routers.edge.authentication import is_public
from backend.routers.edge.problems import Problem, responses
from backend.services.conversations.files.session_file import EXAMPLE, SessionFile

_ANSWER: dict[str, Any] = {
    "title": "Answer",
    "description": "A finished run as one JSON object: the response for `Accept: application/json`.",
    "type": "object",
    "required": ["run_id", "session_id", "message_id", "model", "status", "text", "citations", "sources", "usage"],
    "properties": {
        "run_id": {"type": "string"},
        "session_id": {"type": "string"},
        "user_message_id": {"type": "string"},
        "message_id": {"type": "string"},
        "model": {"type": "string"},
        "status": {"enum": ["completed", "cancelled"]},
        "finish_reason": {"type": ["string", "null"]},
        "text": {"type": "string", "description": "With ` [n]` after each sentence that has a citation."},
        "citations": {"type": "array", "items": {"type": "object"}},
        "citation_counts": {"$ref": "#/components/schemas/CitationCounts"},
        "unlinked": {"type": "integer", "description": "Number of links and images that were replaced by plain text."},
        "sources": {"type": "array", "items": {"$ref": "#/components/schemas/Source"}},
        "usage": {"$ref": "#/components/schemas/TokenUsage"},
    },
}


def install_openapi(
    app: FastAPI, tags: Sequence[dict[str, Any]], schemas_of_streams: Sequence[type[BaseModel]], *, has_keys: bool
) -> None:
    """Make `app.openapi()` return the whole document. It is built at the first request for it.

    `schemas_of_streams` are models that only streams hold, so that FastAPI doesn't see them. `has_keys` tells
    whether API_KEYS is set.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=list(tags)
            )
            schemas = schema["components"]["schemas"]
            (event, _), structs = msgspec.json.schema_components(
                [AnyEvent, SessionFile], ref_template="#/components/schemas/{name}"
            )
            schemas.update(structs)
            schemas["SessionFile"]["examples"] = [EXAMPLE]
            schemas["Event"] = {"title": "Event", "description": "One event of a run's stream.", **event}
            schemas["Answer"] = _ANSWER
            for model in (Problem, *schemas_of_streams):
                model_schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(model_schema.pop("$defs", {}))
                schemas[model.__name__] = model_schema
            _describe_bodies(schema)
            _describe_texts(schema)
            _describe_frames(schema)
            _describe_keys(schema, has_keys=has_keys)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi


def _describe_bodies(schema: dict[str, Any]) -> None:
    """Describe the errors of request bodies: 400 for a body that can't be read, and our own problem for 422. FastAPI
    describes another body for 422, which this server never sends.
    """
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                operation["responses"].setdefault("400", responses(400)[400])
            if "422" in operation["responses"]:
                operation["responses"]["422"] = responses(422)[422]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _describe_texts(schema: dict[str, Any]) -> None:
    """Describe parameters and the fields of forms without null. They are texts: they are there or they aren't."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
            form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
            if form is not None:
                fields = schema["components"]["schemas"][form["schema"]["$ref"].rpartition("/")[2]]["properties"]
                fields.update({name: _without_null(field) for name, field in fields.items()})


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == len(schema.get("anyOf", ())):
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**kinds[0], **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def _describe_frames(schema: dict[str, Any]) -> None:
    """Describe what a stream of server-sent events consists of: frames whose `data` is an event as JSON."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                stream = response.get("content", {}).get("text/event-stream")
                if stream is not None and "$ref" in stream["schema"]:
                    data: dict[str, Any] = {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": stream["schema"],
                    }
                    if any(parameter["name"] == "format" for parameter in operation.get("parameters", ())):
                        text = {"type": "string", "description": "With `format=text`: a part of the answer's text."}
                        data = {"anyOf": [data, text]}
                    properties = {"data": data, "id": {"type": "string"}}
                    stream["schema"] = {"type": "object", "required": ["data"], "properties": properties}


def _describe_keys(schema: dict[str, Any], *, has_keys: bool) -> None:
    """Describe the key that `KeyGate` requires for every path that isn't public. Without API_KEYS it is optional."""
    keys: list[dict[str, Any]] = [{"key": []}] if has_keys else [{"key": []}, {}]
    description = "A key of API_KEYS. Not needed if API_KEYS is not set."
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": description}}
    for path, operations in schema["paths"].items():
        if not is_public(path):
            for operation in operations.values():
                operation["security"] = keys
