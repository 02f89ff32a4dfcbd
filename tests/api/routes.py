"""Every route of the app, one by one, and which of them are open to everybody."""

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from backend.app import create_app
from tests.support.harness import ALL_ON, settings


class Endpoint(NamedTuple):
    """One method of one path, `{...}` for what varies."""

    method: str
    path: str

    @property
    def url(self) -> str:
        """The path with something in the place of each parameter."""
        return re.sub(r"{(\w+)}", lambda found: EXAMPLES.get(found[1], f"{found[1][:3]}_unknown"), self.path)


EXAMPLES = {"name": "unknown", "label": "production", "n": "1"}
"""What stands in the place of a parameter. The others are ids, and get one that doesn't exist."""


PUBLIC = {
    Endpoint("GET", path)
    for path in ("/", "/health", "/ready", "/chat/health", "/docs", "/openapi.json", "/docs/static")
}
PRIVATE = {
    Endpoint("POST", "/chat"),
    Endpoint("GET", "/chat/history/{session_id}"),
    Endpoint("GET", "/runs"),
    Endpoint("GET", "/runs/{run_id}"),
    Endpoint("GET", "/runs/{run_id}/events"),
    Endpoint("POST", "/runs/{run_id}/cancel"),
    Endpoint("POST", "/documents/upload"),
    Endpoint("POST", "/documents/text"),
    Endpoint("POST", "/documents/url"),
    Endpoint("GET", "/documents"),
    Endpoint("GET", "/documents/{document_id}"),
    Endpoint("GET", "/documents/{document_id}/events"),
    Endpoint("GET", "/documents/{document_id}/text"),
    Endpoint("GET", "/documents/{document_id}/content"),
    Endpoint("DELETE", "/documents/{document_id}"),
    Endpoint("PATCH", "/documents/{document_id}"),
    Endpoint("PUT", "/documents/{document_id}/content"),
    Endpoint("GET", "/documents/{document_id}/versions"),
    Endpoint("POST", "/documents/{document_id}/cancel"),
    Endpoint("POST", "/documents/{document_id}/retry"),
    Endpoint("POST", "/documents/sweep"),
    Endpoint("GET", "/collections"),
    Endpoint("POST", "/collections"),
    Endpoint("GET", "/collections/{collection_id}"),
    Endpoint("PATCH", "/collections/{collection_id}"),
    Endpoint("DELETE", "/collections/{collection_id}"),
    Endpoint("POST", "/collections/{collection_id}/embed"),
    Endpoint("DELETE", "/collections/{collection_id}/embed"),
    Endpoint("POST", "/search"),
    Endpoint("GET", "/messages/{message_id}/retrieval"),
    Endpoint("GET", "/images/{image_id}"),
    Endpoint("GET", "/sessions"),
    Endpoint("POST", "/sessions"),
    Endpoint("GET", "/sessions/{session_id}"),
    Endpoint("PATCH", "/sessions/{session_id}"),
    Endpoint("DELETE", "/sessions/{session_id}"),
    Endpoint("GET", "/sessions/{session_id}/messages"),
    Endpoint("GET", "/sessions/{session_id}/active"),
    Endpoint("PUT", "/sessions/{session_id}/head"),
    Endpoint("GET", "/sessions/{session_id}/export"),
    Endpoint("POST", "/sessions/import"),
    Endpoint("GET", "/messages/{message_id}"),
    Endpoint("DELETE", "/messages/{message_id}"),
    Endpoint("PUT", "/messages/{message_id}/feedback"),
    Endpoint("DELETE", "/messages/{message_id}/feedback"),
    Endpoint("POST", "/messages/{message_id}/regenerate"),
    Endpoint("POST", "/messages/{message_id}/edit"),
    Endpoint("GET", "/prompts"),
    Endpoint("POST", "/prompts"),
    Endpoint("GET", "/prompts/{name}"),
    Endpoint("DELETE", "/prompts/{name}"),
    Endpoint("POST", "/prompts/{name}/versions"),
    Endpoint("GET", "/prompts/{name}/versions/{n}"),
    Endpoint("PUT", "/prompts/{name}/labels/{label}"),
    Endpoint("DELETE", "/prompts/{name}/labels/{label}"),
    Endpoint("GET", "/prompts/{name}/diff"),
    Endpoint("POST", "/prompts/{name}/render"),
    Endpoint("GET", "/models"),
    Endpoint("GET", "/usage"),
    Endpoint("GET", "/me"),
    Endpoint("GET", "/search/messages"),
    Endpoint("GET", "/metrics"),
}
"""A new route belongs here or into PUBLIC, by a decision: test_authentication.py fails until it does."""


def make_app() -> FastAPI:
    """An app with all endpoints, which is only looked at."""
    return create_app(settings(Path(tempfile.mkdtemp()), **ALL_ON))


def endpoints(app: FastAPI) -> set[Endpoint]:
    """What the app really serves, Starlette's own routes and mounts too."""
    found: set[Endpoint] = set()
    for context in iter_route_contexts(app.routes):
        if isinstance(context, Mount) or not context.methods:
            found.add(Endpoint("GET", str(context.path)))
            continue
        found.update(Endpoint(m, str(context.path)) for m in context.methods if m != "HEAD")
    return found
