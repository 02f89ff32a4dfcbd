"""One network for all: whatever opens a connection knows the same authorities, proxies and passwords."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder
from backend.chains.retrieval.rerankers import RerankerSettings, open_reranker
from backend.config.settings import Settings
from backend.errors import RunError
from backend.kit.network.network import DIRECT, Network
from tests.contract.clients import CLIENTS, WIRES, Connection, opened_provider, text_by
from tests.support.networks import NAME, Authority, ForwardProxy
from tests.support.provider_protocol import Cut, Send, Status, json_response
from tests.support.provider_server import ProviderServer
from tests.support.site_server import answer, site

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = "sk-test-0123456789"
VARIABLES = ("CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own network."""
    for name in (*VARIABLES, *PROXIES, "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", "/nowhere")


@pytest_asyncio.fixture(loop_scope="module")
async def safe_provider(authority: Authority) -> AsyncIterator[ProviderServer]:
    async with ProviderServer(tls=authority.server) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def proxy() -> AsyncIterator[ForwardProxy]:
    async with ForwardProxy() as forward:
        yield forward


def network() -> Network:
    """The network of the environment, as the server reads it."""
    return Settings.load(env_file=None).network.network()


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


async def works(client: str, server: ProviderServer, url: str, key: str | None = None) -> bool:
    try:
        return await CLIENTS[client](server, Connection(url, network(), key))
    except Exception:
        return False


every_client = pytest.mark.parametrize("client", CLIENTS)
every_wire = pytest.mark.parametrize("wire", WIRES)


@every_client
@pytest.mark.parametrize("variable", ["CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
async def test_an_own_authority_is_trusted(
    client: str, variable: str, authority: Authority, safe_provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    assert await works(client, safe_provider, safe_provider.url_at("localhost"))


@every_client
async def test_an_authority_that_nobody_named_is_not_trusted(client: str, safe_provider: ProviderServer) -> None:
    assert not await works(client, safe_provider, safe_provider.url_at("localhost"))
    assert safe_provider.requests == []


@every_client
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
async def test_a_proxy_leads_to_http(
    client: str, variable: str, provider: ProviderServer, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy.url("user:p%40ss@"))
    assert await works(client, provider, provider.url_at(NAME))
    assert set(proxy.targets) == {NAME}
    assert set(proxy.logins) == {basic("user", "p@ss")}
    assert provider.requests[0].headers["host"] == f"{NAME}:{provider.port}"


@every_client
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
async def test_a_proxy_leads_to_https(
    client: str,
    variable: str,
    authority: Authority,
    safe_provider: ProviderServer,
    proxy: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, proxy.url("user:p%40ss@"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert await works(client, safe_provider, safe_provider.url_at(NAME))
    assert set(proxy.targets) == {NAME}
    assert set(proxy.logins) == {basic("user", "p@ss")}


@pytest.mark.parametrize("client", ["openai answer", "anthropic answer", "google answer"])
@pytest.mark.parametrize("is_safe", [True, False])
async def test_a_proxy_is_reached_by_https(
    client: str, is_safe: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CA_BUNDLE", str(authority.file))
    tls = authority.server
    async with ForwardProxy(tls) as proxy, ProviderServer(tls=tls if is_safe else None) as server:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        assert await works(client, server, server.url_at(NAME))
        assert set(proxy.targets) == {NAME}


@every_wire
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_said(wire: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as proxy:
        proxy.fallback = answer(407)
        monkeypatch.setenv("ALL_PROXY", f"http://user:secret@127.0.0.1:{proxy.port}")
        async with opened_provider(wire, Connection(f"{scheme}://{NAME}", network(), KEY)) as opened:
            with pytest.raises(RunError, match="proxy") as refused:
                await text_by(opened)
            assert "secret" not in refused.value.message
            listing = await opened.listing()
            assert listing.models == () and "secret" not in listing.reason


@every_client
async def test_no_proxy_leads_to_this_machine(
    client: str, provider: ProviderServer, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url())
    assert await works(client, provider, provider.root_url)
    assert proxy.targets == []


@every_client
async def test_a_host_of_no_proxy_is_reached_directly(
    client: str, provider: ProviderServer, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be reached at all, since only the proxy knows the name."""
    monkeypatch.setenv("ALL_PROXY", proxy.url())
    monkeypatch.setenv("NO_PROXY", f"10.0.0.0/8,.{NAME.partition('.')[2]}")
    assert not await works(client, provider, provider.url_at(NAME))
    assert proxy.targets == []


@every_client
@pytest.mark.parametrize("key", [None, KEY])
async def test_a_password_in_the_address_is_sent(client: str, key: str | None, provider: ProviderServer) -> None:
    assert await works(client, provider, provider.url_at("us%20er:p%40ss%2Fword@127.0.0.1"), key)
    assert {call.headers.get("authorization") for call in provider.requests} == {basic("us er", "p@ss/word")}


@every_client
async def test_a_password_of_the_netrc_file_is_sent(
    client: str, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert await works(client, provider, provider.root_url)
    assert {call.headers.get("authorization") for call in provider.requests} == {basic("me", "secret")}
    assert "Basic" not in str(network().address("http://localhost").login)


@every_client
async def test_a_key_goes_before_the_netrc_file(
    client: str, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert await works(client, provider, provider.root_url, KEY)
    sent = [" ".join(call.headers.values()) for call in provider.requests]
    # Ollama's embeddings have no key.
    assert client == "ollama embeddings" or all(KEY in headers and "Basic" not in headers for headers in sent)


# --- connections that were kept too long


@every_wire
@pytest.mark.parametrize("reset", [True, False])
async def test_a_kept_connection_that_is_dead_is_replaced(wire: str, reset: bool, provider: ProviderServer) -> None:
    async with opened_provider(wire, Connection(provider.root_url, DIRECT, KEY)) as opened:
        for _ in range(2):
            assert await text_by(opened) == "Hello from the provider."
            provider.script([Cut(reset)])
            assert await text_by(opened) == "Hello from the provider."
        assert len(provider.calls) == 6


@every_wire
@pytest.mark.parametrize("reset", [True, False])
async def test_a_new_connection_that_dies_is_a_failure(wire: str, reset: bool, provider: ProviderServer) -> None:
    provider.script([Cut(reset)])
    async with opened_provider(wire, Connection(provider.root_url, DIRECT, KEY)) as opened:
        with pytest.raises(RunError):
            await text_by(opened)
        assert len(provider.calls) == 1


@every_wire
async def test_it_is_tried_once_more_and_not_twice(wire: str, provider: ProviderServer) -> None:
    async with opened_provider(wire, Connection(provider.root_url, DIRECT, KEY)) as opened:
        await text_by(opened)
        provider.script([Cut()], [Cut()], [Cut()])
        with pytest.raises(RunError):
            await text_by(opened)
        assert len(provider.calls) == 3


@every_wire
async def test_an_answer_that_has_begun_is_not_asked_for_again(wire: str, provider: ProviderServer) -> None:
    async with opened_provider(wire, Connection(provider.root_url, DIRECT, KEY)) as opened:
        await text_by(opened)
        provider.script([Status(200, {"Content-Type": "text/event-stream"}), Send(b": hm\n\n"), Cut()])
        with pytest.raises(RunError):
            await text_by(opened)
        assert len(provider.calls) == 2


@pytest.mark.parametrize(("kind", "path"), [("openai", "/v1/embeddings"), ("ollama", "/api/embed")])
async def test_embeddings_replace_a_dead_connection(
    kind: str, path: str, provider: ProviderServer, tmp_path: Path
) -> None:
    urls: dict[str, Any] = {"openai_base_url": provider.base_url, "ollama_base_url": provider.root_url}
    embedder = open_embedder(f"{kind}/test", EmbeddingSettings(cache_dir=tmp_path, **urls))
    await embedder.prepare()
    provider.script([Cut()], path=path)
    assert len(await embedder.embed_query("rent")) == embedder.dimension
    assert len(provider.requests) == 3
    await embedder.aclose()


async def test_a_reranker_replaces_a_dead_connection(provider: ProviderServer) -> None:
    whole = [json_response(200, {"results": [{"index": 0, "relevance_score": 0.5}]})]
    provider.script(whole, [Cut()], whole, path="/rerank")
    reranker = open_reranker(provider.root_url, RerankerSettings())
    assert [await reranker.scores("rent", ["one"]) for _ in range(2)] == [[0.5], [0.5]]
    assert len(provider.requests) == 3
    await reranker.aclose()
