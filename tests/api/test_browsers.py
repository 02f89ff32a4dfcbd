"""Other people's web pages, rebound names, other machines: refused before anything is run or stored."""

from typing import Any

import pytest
from starlette.types import Message, Scope

from backend.config.groups.server import ServerSettings
from backend.routers.edge.guard import Guard
from tests.api.helpers import ALICE, bearer, multipart, problem, stored, unique
from tests.api.routes import PRIVATE, Endpoint
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANGING = sorted(e for e in PRIVATE if e.method not in ("GET", "HEAD", "OPTIONS"))
FOREIGN = [
    "http://evil.example",
    "https://localhost:3000",
    "http://localhost:3001",
    "http://localhost.evil.example",
    "http://localhost:3000.evil.example",
    "http://127.0.0.1",
    "null",
    "file://",
    "http://localhost:3000/",
    "HTTP://LOCALHOST:3000",
    "chrome-extension://abcdef",
]
CHAT = {"message": "hi", "documents": False}


@pytest.mark.parametrize("endpoint", CHANGING, ids=" ".join)
async def test_a_foreign_page_can_change_nothing(api: Running, endpoint: Endpoint) -> None:
    before = await stored(api)
    headers = {"Origin": "http://evil.example"}
    body = problem(await api.client.request(endpoint.method, endpoint.url, headers=headers), 403, "foreign_origin")
    assert "CORS_ORIGINS" in body["detail"]
    assert await stored(api) == before


@pytest.mark.parametrize("origin", FOREIGN)
async def test_what_only_looks_like_our_origin_is_foreign(api: Running, origin: str) -> None:
    before = await stored(api)
    response = await api.client.post("/chat", json=CHAT, headers={"Origin": origin})
    problem(response, 403, "foreign_origin")
    assert "access-control-allow-origin" not in response.headers
    assert await stored(api) == before


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://localhost:5173"])
async def test_origins_of_the_setting_may_call_and_read(api: Running, origin: str) -> None:
    response = await api.client.post("/chat", json=CHAT, headers={"Origin": origin})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in response.headers
    exposed = {h.strip() for h in response.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"Location", "Content-Location", "Retry-After", "X-StreamForge-Protocol", "X-Request-ID"}


async def test_our_own_origin_may_call(api: Running) -> None:
    assert (await api.client.post("/chat", json=CHAT, headers={"Origin": api.base})).status_code == 200


async def test_a_foreign_page_may_send_reads_but_never_see_them(api: Running) -> None:
    response = await api.client.get("/sessions", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_errors_can_be_read_by_allowed_pages(api: Running) -> None:
    response = await api.client.post("/chat", json={"message": ""}, headers={"Origin": "http://localhost:3000"})
    problem(response, 422, "invalid_request")
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize("header", ["authorization", "content-type", "last-event-id", "idempotency-key"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
async def test_preflight_allows_what_the_protocol_names(api: Running, method: str, header: str) -> None:
    headers = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": header,
    }
    response = await api.client.options("/chat", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["access-control-allow-origin"] == "http://localhost:5173"


async def test_preflight_of_a_foreign_page_is_refused(api: Running) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    response = await api.client.options("/chat", headers=headers)
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8001",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "8.8.8.8",
        "0.0.0.0",
        "[",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/sessions", "/docs", "/openapi.json", "/nothing"])
async def test_a_rebound_name_is_421(api: Running, host: str, path: str) -> None:
    response = await api.client.get(path, headers={"Host": host})
    detail = problem(response, 421, "wrong_host")["detail"]
    assert host == "[" or f"TRUSTED_HOSTS={host.partition(':')[0].lower()}" in detail, "it says which, and what to set"


async def test_a_rebound_name_can_change_nothing(api: Running) -> None:
    before = await stored(api)
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    problem(await api.client.post("/chat", json=CHAT, headers=headers), 421, "wrong_host")
    assert await stored(api) == before


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "LOCALHOST", "127.0.0.1", "127.8.9.1:80", "[::1]:8001"])
async def test_names_of_this_machine_are_right(api: Running, host: str) -> None:
    assert (await api.client.get("/health", headers={"Host": host})).status_code == 200


async def test_the_host_is_reflected_nowhere(api: Running) -> None:
    """CVE-2026-48710: a Host that poisons URLs."""
    headers = {"Host": "localhost:666", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    chat = await api.client.post("/chat", json=CHAT, headers=headers)
    assert chat.headers["location"].startswith("/runs/run_")
    assert chat.headers["content-location"].startswith("/runs/run_")
    for path in ("/docs", "/openapi.json", "/"):
        response = await api.client.get(path, headers=headers)
        assert "666" not in response.text and "evil" not in response.text
    redirect = await api.client.get("/sessions/", headers=headers)
    assert "666" not in redirect.headers.get("location", ""), "a redirect holds the Host header"


@pytest.mark.parametrize("mark", [{"Origin": "SELF"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("path", ["/chat", "/search"])
async def test_a_browsers_form_is_not_taken_for_json(api: Running, path: str, kind: str, mark: dict[str, str]) -> None:
    before = await stored(api)
    mark = {k: api.base if v == "SELF" else v for k, v in mark.items()}
    body = b'{"message": "hi"}' if path == "/chat" else b'{"query": "hi"}'
    response = await api.client.post(path, content=body, headers={"Content-Type": kind, **mark})
    problem(response, 422, "invalid_request")
    assert await stored(api) == before


async def test_a_foreign_pages_upload_form_is_refused(api: Running) -> None:
    before = await stored(api)
    body, headers = multipart(b"a.txt", unique("Planted."))
    response = await api.client.post(
        "/documents/upload", content=body, headers={**headers, "Origin": "http://evil.example"}
    )
    problem(response, 403, "foreign_origin")
    assert await stored(api) == before


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
async def test_curl_without_headers_may_chat(api: Running, headers: dict[str, str]) -> None:
    response = await api.client.post("/chat", content=b'{"message":"hi"}', headers=headers)
    assert response.status_code == 200


# --- the peer, by Guard itself: a test can't call from another machine


async def through(guard_settings: dict[str, Any], **scope: Any) -> tuple[int, bytes]:
    """What Guard answers to a request with this scope; the app behind it says 204."""
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    base: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/sessions",
        "scheme": "http",
        "headers": [(b"host", b"localhost:8001")],
        "client": ("127.0.0.1", 5000),
    }
    guard = Guard(app, ServerSettings(_env_file=None, **guard_settings))  # type: ignore[call-arg]
    await guard({**base, **scope}, receive, send)
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "8.8.8.8", "fe80::1", "::ffff:192.168.1.7", "testclient"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_keys_another_machine_is_403(peer: str, method: str) -> None:
    status, body = await through({}, client=(peer, 5000), method=method)
    assert status == 403
    assert b"foreign_peer" in body and b"API_KEYS" in body


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
async def test_without_keys_this_machine_may_call(peer: str) -> None:
    assert (await through({}, client=(peer, 5000)))[0] == 204


async def test_a_forwarded_header_does_not_make_another_machine_local() -> None:
    headers = [(b"host", b"localhost"), (b"x-forwarded-for", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")]
    assert (await through({}, client=("10.0.0.1", 1), headers=headers))[0] == 403


async def test_with_keys_another_machine_may_call_by_any_name() -> None:
    reachable = {"host": "0.0.0.0", "api_keys": f"alice:{ALICE}"}
    headers = [(b"host", b"stream.example"), *((k.lower().encode(), v.encode()) for k, v in bearer(ALICE).items())]
    assert (await through(reachable, client=("10.0.0.1", 1), headers=headers))[0] == 204


async def test_an_allowed_origin_over_https_behind_a_proxy() -> None:
    reachable = {"host": "0.0.0.0", "api_keys": f"alice:{ALICE}", "cors_origins": "https://stream.example"}
    headers = [(b"host", b"stream.example"), (b"origin", b"https://stream.example")]
    assert (await through(reachable, client=("10.0.0.1", 1), headers=headers, method="POST"))[0] == 204


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"rag.example", 204),
        (b"RAG.example:8443", 204),
        (b"a.team.example", 204),
        (b"localhost", 204),
        (b"team.example", 421),
        (b"evil-rag.example", 421),
        (b"rag.example.evil", 421),
    ],
)
async def test_the_names_of_trusted_hosts_may_be_used(host: bytes, status: int) -> None:
    settings = {"trusted_hosts": "rag.example, *.team.example"}
    assert (await through(settings, headers=[(b"host", host)]))[0] == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [(b"https://rag.example", 204), (b"http://rag.example", 204), (b"https://evil.example", 403)],
)
async def test_pages_of_a_trusted_name_may_call_behind_a_proxy_with_tls(origin: bytes, status: int) -> None:
    headers = [(b"host", b"rag.example"), (b"origin", origin)]
    assert (await through({"trusted_hosts": "rag.example"}, method="POST", headers=headers))[0] == status


async def test_with_keys_beyond_loopback_any_name_is_right_until_names_are_set() -> None:
    key = "alice:0123456789abcdefghijklmnop"
    headers = [(b"host", b"any.example")]
    assert (await through({"host": "0.0.0.0", "api_keys": key}, headers=headers))[0] == 204
    named = {"host": "0.0.0.0", "api_keys": key, "trusted_hosts": "rag.example"}
    assert (await through(named, headers=headers))[0] == 421
