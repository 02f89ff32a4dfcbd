"""The OpenAPI document: FastAPI's own, with the stream's events as schemas."""

from collections.abc import Iterator, Sequence
from inspect import cleandoc
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from backend.events import AnyEvent
from backend.messages import MessagePart
from backend.routers.edge.authentication import is_public
from backend.routers.edge.problems import Problem, ProblemExample, responses
from backend.routers.edge.view import SCHEMA
from backend.services.conversations.files.session_file import EXAMPLE, SessionFile

_METHODS = ("get", "post", "put", "patch", "delete")


def install_openapi(
    app: FastAPI,
    tags: Sequence[dict[str, Any]],
    more_schemas: Sequence[type[BaseModel] | type[msgspec.Struct]],
    *,
    has_keys: bool,
) -> None:
    """Make `app.openapi()` return the whole document. It is built at the first request for it.

    `more_schemas` are models that FastAPI doesn't see, because only streams or stored JSON hold them. `has_keys` tells
    whether API_KEYS is set.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=list(tags)
            )
            _add_schemas(schema["components"]["schemas"], more_schemas)
            _resolve(schema)
            _describe_texts(schema)
            _describe_files(schema)
            _describe_bodies(schema)
            _describe_frames(schema)
            _describe_keys(schema, has_keys=has_keys)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi


def _add_schemas(schemas: dict[str, Any], models: Sequence[type[BaseModel] | type[msgspec.Struct]]) -> None:
    """Add the events, the parts of messages, the files of sessions, and `models`."""
    (event, part, *_), structs = msgspec.json.schema_components(
        [AnyEvent, MessagePart, SessionFile, *(model for model in models if issubclass(model, msgspec.Struct))],
        ref_template="#/components/schemas/{name}",
    )
    for struct in structs.values():
        if "description" in struct:
            struct["description"] = cleandoc(struct["description"])
    schemas.update(structs)
    schemas["SessionFile"]["examples"] = [EXAMPLE]
    schemas["MessagePart"] = {"title": "MessagePart", "description": "A part of a message.", **part}
    schemas["Event"] = {"title": "Event", "description": "One event of a run's stream.", **event}
    for model in (Problem, *(model for model in models if issubclass(model, BaseModel))):
        model_schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(model_schema.pop("$defs", {}))
        schemas[model.__name__] = model_schema


def _resolve(value: Any) -> None:
    """Replace each `x-schema` by a reference to that schema."""
    if isinstance(value, dict):
        node = cast("dict[str, Any]", value)
        if SCHEMA in node:
            node["$ref"] = f"#/components/schemas/{node.pop(SCHEMA)}"
        for child in node.values():
            _resolve(child)
    elif isinstance(value, list):
        for child in cast("list[Any]", value):
            _resolve(child)


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in schema["paths"].items():
        for method in _METHODS:
            if method in operations:
                yield path, operations[method]


def _describe_files(schema: dict[str, Any]) -> None:
    """Describe files as `format: binary`, for which Swagger UI and generated clients offer a file. FastAPI writes
    `contentMediaType`, which they take for text.
    """
    for _, operation in _operations(schema):
        content = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
        if content is None:
            continue
        form = schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        for field in form["properties"].values():
            file = field.get("items", field)
            if file.pop("contentMediaType", None) is not None:
                file["format"] = "binary"


def _describe_bodies(schema: dict[str, Any]) -> None:
    """Describe what can be wrong with a body, a path or a query: 400 for a body that can't be read, and our own problem
    for 422. FastAPI describes another body for 422, which this server never sends.
    """
    for path, operation in _operations(schema):
        errors = operation["responses"]
        if "requestBody" in operation:
            errors.setdefault("400", responses(400)[400])
        elif "400" in errors:
            errors["400"] = responses(_BAD_CURSOR)[400]
        if not is_public(path) or "422" in errors:
            errors["422"] = responses(_invalid_example(operation))[422]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


_BAD_CURSOR = ProblemExample(400, "bad_cursor", "cursor: must be the next_cursor of a page.")


def _invalid_example(operation: dict[str, Any]) -> ProblemExample:
    """An example of 422: a query parameter that the endpoint doesn't have, or for a body a field."""
    if "requestBody" in operation:
        detail = "colour: is not a field of this request. GET /docs shows which there are"
    else:
        names = sorted(p["name"] for p in operation.get("parameters", ()) if p["in"] == "query")
        allowed = f"Its parameters: {', '.join(names)}." if names else "It has no parameters."
        detail = f"colour: is not a query parameter of this endpoint. {allowed}"
    return ProblemExample(422, "invalid_request", detail)


def _describe_texts(schema: dict[str, Any]) -> None:
    """Describe parameters and the fields of forms without null. They are texts: they are there or they aren't."""
    for _, operation in _operations(schema):
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
    for _, operation in _operations(schema):
        for response in operation["responses"].values():
            stream = response.get("content", {}).get("text/event-stream")
            if stream is not None and "$ref" in stream["schema"]:
                properties = {"data": _frame_data(operation, stream["schema"]), "id": {"type": "string"}}
                stream["schema"] = {"type": "object", "required": ["data"], "properties": properties}


def _frame_data(operation: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """The schema of a frame's `data`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": event}
    if all(parameter["name"] != "format" for parameter in operation.get("parameters", ())):
        return data
    text = {"type": "string", "description": "With `format=text`: a part of the answer's text."}
    return {"anyOf": [data, text]}


def _describe_keys(schema: dict[str, Any], *, has_keys: bool) -> None:
    """Describe the key that `KeyGate` requires for every path that isn't public. Without API_KEYS it is optional."""
    keys: list[dict[str, Any]] = [{"key": []}] if has_keys else [{"key": []}, {}]
    description = "A key of API_KEYS. Not needed if API_KEYS is not set."
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": description}}
    for path, operation in _operations(schema):
        if not is_public(path):
            operation["security"] = keys
