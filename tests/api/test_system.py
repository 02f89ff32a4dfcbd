"""The server about itself: exact bodies, its documentation without a network, request ids."""

import re

import pytest

from backend import __version__
from backend.chains.models import plugins
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_root(api: Running) -> None:
    assert (await api.client.get("/")).json() == {
        "name": "StreamForge API",
        "version": __version__,
        "status": "running",
        "endpoints": {"chat": "/chat", "health": "/chat/health", "docs": "/docs", "openapi": "/openapi.json"},
    }


async def test_health(api: Running) -> None:
    response = await api.client.get("/health")
    assert response.json() == {"status": "healthy", "service": "StreamForge API", "version": __version__}
    assert response.headers["content-type"] == "application/json"


async def test_ready(api: Running) -> None:
    response = await api.client.get("/ready")
    assert (response.status_code, response.json()["status"]) == (200, "ready")


async def test_chat_health(api: Running) -> None:
    response = await api.client.get("/chat/health")
    assert response.json() == {"service": "chat", "status": "healthy", "streaming": "enabled"}


async def test_what_the_root_names_is_there(api: Running) -> None:
    endpoints = (await api.client.get("/")).json()["endpoints"]
    for name in ("health", "docs", "openapi"):
        assert (await api.client.get(endpoints[name])).status_code == 200
    assert (await api.client.post(endpoints["chat"], json={"message": "hi"})).status_code == 200


async def test_the_docs_need_no_other_host(api: Running) -> None:
    page = (await api.client.get("/docs")).text
    references = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page)
    assert {"/docs/static/swagger-ui-bundle.js", "/docs/static/swagger-ui.css", "/openapi.json"} <= set(references)
    assert not [r for r in references if not r.startswith("/") or r.startswith("//")]
    assert not re.search(r"https?://(?!localhost|127\.0\.0\.1)", page)
    for path in references:
        response = await api.client.get(path)
        assert response.status_code == 200, path
        assert len(response.content) > 100


@pytest.mark.parametrize("path", ["/docs/static/../../main.py", "/docs/static/%2e%2e/%2e%2e/x", "/docs/static/..%5cx"])
async def test_the_docs_folder_cannot_be_left(api: Running, path: str) -> None:
    assert (await api.client.get(path)).status_code == 404


async def test_every_answer_has_a_request_id_of_its_own(api: Running) -> None:
    ids = {(await api.client.get(path)).headers["x-request-id"] for path in ("/", "/health", "/sessions", "/nothing")}
    assert len(ids) == 4


async def test_a_callers_request_id_is_kept_if_it_is_harmless(api: Running) -> None:
    response = await api.client.get("/health", headers={"X-Request-ID": "trace-1.2_x"})
    assert response.headers["x-request-id"] == "trace-1.2_x"


@pytest.mark.parametrize("given", ["a" * 65, "a b", "a\tb", "<script>", 'a"b', "ä".encode("latin-1"), ""])
async def test_another_request_id_is_replaced(api: Running, given: str | bytes) -> None:
    response = await api.client.get(
        "/health", headers={b"X-Request-ID": given if isinstance(given, bytes) else given.encode()}
    )
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


async def test_models_lists_what_can_be_used_and_why_the_rest_can_not(api: Running) -> None:
    body = (await api.client.get("/models")).json()
    assert body["default"] == "extractive/quotes"
    providers = {p["provider"]: p for p in body["providers"]}
    assert providers.keys() == {kind.name for plugin in plugins() for kind in plugin.kinds}
    # Something may listen on these ports of this machine.
    local = {"vllm", "llamacpp", "lmstudio"}
    assert {name for name, p in providers.items() if p["available"]} - local == {"extractive", "simulated", "local"}
    assert "OPENAI_API_KEY" in providers["openai"]["reason"]
    assert "ANTHROPIC_API_KEY" in providers["anthropic"]["reason"]
    assert [name for name, p in providers.items() if not p["reason"]] == []
    for provider in providers.values():
        assert all(m.startswith(f"{provider['provider']}/") for m in provider["models"])


async def test_a_crash_is_a_problem_with_the_request_id_and_no_details(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.services.library.documents._rows, "page", broken)
    response = await api.client.get("/documents", headers={"X-Request-ID": "crash-1"})
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert response.json()["request_id"] == "crash-1"
    assert "secret" not in response.text
