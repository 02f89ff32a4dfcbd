"""HEAD, OPTIONS and Allow: what HTTP promises for every path."""

import asyncio

import httpx
import pytest

from tests.api.helpers import problem
from tests.api.routes import PRIVATE, PUBLIC
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHODS_OF: dict[str, set[str]] = {}
for method_, path_ in sorted(PRIVATE | PUBLIC):
    METHODS_OF.setdefault(path_, {"OPTIONS"}).update({method_, "HEAD"} if method_ == "GET" else {method_})
PATHS = sorted(path for path in METHODS_OF if path != "/docs/static")


def concrete(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def allowed(response: httpx.Response) -> set[str]:
    return set(response.headers["allow"].split(", "))


@pytest.mark.parametrize("path", PATHS)
async def test_a_wrong_method_is_told_all_methods_of_the_path(api: Running, path: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "TRACE"} - METHODS_OF[path]:
        response = await api.client.request(method, concrete(path))
        problem(response, 405, "method_not_allowed")
        assert allowed(response) == METHODS_OF[path], method


@pytest.mark.parametrize("path", PATHS)
async def test_options_lists_the_methods_of_the_path(api: Running, path: str) -> None:
    response = await api.client.options(concrete(path))
    assert (response.status_code, response.content) == (204, b"")
    assert allowed(response) == METHODS_OF[path]


async def test_options_of_an_unknown_path_is_404(api: Running) -> None:
    problem(await api.client.options("/nothing/here"), 404, "not_found")


@pytest.mark.parametrize("path", [path for path in PATHS if "GET" in METHODS_OF[path]])
async def test_head_is_get_without_the_body(api: Running, path: str) -> None:
    got = await api.client.get(concrete(path))
    head = await api.client.head(concrete(path))
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if path not in ("/metrics", "/ready", "/chat/health"):
        assert head.headers.get("content-length") == got.headers.get("content-length")


async def test_head_of_a_stream_ends_at_once(api: Running) -> None:
    answer = (await api.client.post("/chat", json={"message": "hi"}, headers={"Accept": "application/json"})).json()
    async with asyncio.timeout(5):
        head = await api.client.head(f"/runs/{answer['run_id']}/events")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    export = await api.client.head(f"/sessions/{answer['session_id']}/export")
    assert (export.status_code, export.content) == (200, b"")
    static = await api.client.head("/docs/static/swagger-ui.css")
    assert (static.status_code, static.content) == (200, b"")
