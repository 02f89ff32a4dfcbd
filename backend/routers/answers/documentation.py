"""The OpenAPI parameters and responses of every endpoint that returns a run's stream."""

from typing import Any

from backend.routers.dialects import BY_FORMAT
from backend.routers.dialects.json import STATUS_BY_CODE
from backend.routers.edge.bounds import MAX_ID
from backend.routers.edge.examples import EMBEDDING_MISMATCH, MODEL_NOT_FOUND
from backend.routers.edge.problems import responses


def header_parameter(name: str, description: str) -> dict[str, Any]:
    """The OpenAPI parameter for a header that the endpoint reads without FastAPI."""
    schema = {"type": "string", "maxLength": MAX_ID}
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


# The endpoints read these without FastAPI, whose parameters cost 40 µs each per request.
STREAM_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "format",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": list(BY_FORMAT), "default": "events"},
        "description": "`text`: only the text, as frames `data: word`.",
    },
    header_parameter(
        "Last-Event-ID", "Id of the last event that you received, `<run_id>:<seq>`; the stream continues after it."
    ),
]


_EXAMPLE = (
    'data: {"type":"run.started","seq":1,"run_id":"run_0193…","session_id":"ses_0193…",'
    '"user_message_id":"msg_0193…","message_id":"msg_0194…","model":"extractive/quotes","v":1}\nid: run_0193…:1\n\n'
    'data: {"type":"text.delta","seq":5,"part_id":"p1","text":"The notice period is 30 days."}\nid: run_0193…:5\n\n'
    'data: {"type":"run.completed","seq":9,"finish_reason":"stop",'
    '"usage":{"input_tokens":0,"output_tokens":0}}\nid: run_0193…:9\n\n'
)


STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run's events. Each `data:` line is one `Event`. To reconnect, send its `id:` as "
        "`Last-Event-ID`.",
        "content": {
            "text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}, "example": _EXAMPLE},
            "text/plain": {"schema": {"type": "string"}, "example": "The notice period is 30 days. [1]\n"},
            "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        },
        "headers": {
            "Location": {"description": "URL of this run's events.", "schema": {"type": "string"}},
            "Content-Location": {"description": "URL of the run.", "schema": {"type": "string"}},
            "X-StreamForge-Protocol": {
                "description": "Version of the stream's protocol.",
                "schema": {"type": "string"},
            },
        },
    },
    **responses(*sorted(set(STATUS_BY_CODE.values()) - {404, 409}), MODEL_NOT_FOUND, EMBEDDING_MISMATCH),
}
