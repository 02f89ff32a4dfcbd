"""Settings: every wrong value is one line that names the variable; secrets stay secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from pydantic import BaseModel, SecretStr

from backend.config.fields import parse_hosts
from backend.config.groups.accounts import parse_keys
from backend.config.settings import Settings, SettingsError

ALICE = "alice-0123456789abcdefghijkl"
BOB = "bob-9876543210zyxwvutsrqponm"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting comes from the environment of the tests."""
    for group in Settings.model_fields.values():
        for name in cast("type[BaseModel]", group.annotation).model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    yield


def load(monkeypatch: pytest.MonkeyPatch, **env: str) -> Settings:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return Settings.load(env_file=None)


WRONG = [
    ("PORT", "eighty"),
    ("PORT", "-1"),
    ("PORT", "70000"),
    ("RELOAD", "maybe"),
    ("SHUTDOWN_GRACE", "-1"),
    ("CORS_ORIGINS", "*"),
    ("CORS_ORIGINS", "http://localhost:3000,*"),
    ("CORS_ORIGINS", "localhost:3000"),
    ("CORS_ORIGINS", "http://localhost:3000/path"),
    ("CORS_ORIGINS", "http://"),
    ("CORS_ORIGINS", "null"),
    ("API_KEYS", "alice"),
    ("API_KEYS", "alice:short"),
    ("API_KEYS", f":{ALICE}"),
    ("API_KEYS", f"{ALICE}"),
    ("API_KEYS", f"al ice:{ALICE}"),
    ("API_KEYS", f"alice:{ALICE},alice:{BOB}"),
    ("API_KEYS", f"alice:{ALICE},bob:{ALICE}"),
    ("API_KEYS", "alice:" + "a" * 40),
    ("API_KEYS", "alice:" + "ab" * 20),
    ("API_KEYS", "alice:" + "ä" * 30),
    ("API_KEYS", ","),
    ("API_KEYS", f"alice:{ALICE}\x07"),
    ("API_KEYS", f"alice:{ALICE}\n{BOB}"),
    ("OPENAI_API_KEY", "sk-one\nsk-two"),
    ("OPENAI_API_KEY", "sk-one\x07"),
    ("OPENAI_API_KEY", "sk-\u201cone\u201d"),
    ("OPENAI_API_KEY", '"sk-one"'),
    ("OPENAI_API_KEY", "'sk-one'"),
    ("RERANKER_API_KEY", "rk-one\rrk-two"),
    ("OPENAI_BASE_URL", "http://user:pass/word@host/v1"),
    ("OPENAI_BASE_URL", "http://"),
    ("OLLAMA_BASE_URL", "http://host:99999"),
    ("CA_BUNDLE", "/nowhere/ca.pem"),
    ("SSL_CERT_FILE", "/dev/null"),
    ("SSL_CERT_DIR", "/nowhere:/nowhere"),
    ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem"),
    ("CURL_CA_BUNDLE", "/nowhere/ca.pem"),
    ("HTTP_PROXY", "ftp://proxy.test"),
    ("HTTPS_PROXY", "socks5://proxy.test"),
    ("ALL_PROXY", "socks5h://user:pass@proxy.test:1080"),
    ("NETRC", "/nowhere/netrc"),
    ("DATABASE_URL", "postgresql://db/x"),
    ("DATABASE_URL", "sqlite://x"),
    ("DATABASE_URL", "sqlite:///"),
    ("DATABASE_URL", "sqlite:///:memory:"),
    ("CHROMA_URL", "http://chroma:8000"),
    ("EVENT_RETENTION_HOURS", "0"),
    ("LOG_LEVEL", "LOUD"),
    ("LOG_FORMAT", "xml"),
    ("LLM_MODEL", "gpt-5"),
    ("LLM_MODEL", "openai/"),
    ("LLM_TEMPERATURE", "2.5"),
    ("LLM_TEMPERATURE", "nan"),
    ("LLM_MAX_TOKENS", "0"),
    ("OPENAI_BASE_URL", "localhost:8080/v1"),
    ("OLLAMA_BASE_URL", "127.0.0.1:11434"),
    ("STREAM_DELAY", "-0.1"),
    ("STREAM_DELAY", "nan"),
    ("EMBEDDING_MODEL", "minilm"),
    ("ENABLE_RAG", "perhaps"),
    ("CHUNK_SIZE", "10"),
    ("CHUNK_SIZE", "1e9"),
    ("TOP_K", "0"),
    ("MAX_UPLOAD_MB", "0"),
    ("MAX_UPLOAD_FILES", "0"),
    ("PARSE_TIMEOUT", "0"),
    ("URL_ALLOWED_HOSTS", "http://intranet"),
    ("URL_ALLOWED_HOSTS", "intranet/"),
    ("URL_ALLOWED_HOSTS", "intranet:0"),
    ("URL_ALLOWED_HOSTS", "intranet:x"),
    ("URL_ALLOWED_HOSTS", "intranet:99999"),
    ("URL_ALLOWED_HOSTS", "a:b@intranet"),
    ("URL_ALLOWED_HOSTS", "*.intranet"),
    ("URL_ALLOWED_HOSTS", "[::1"),
    ("URL_ALLOWED_HOSTS", ":80"),
    ("URL_TIMEOUT", "0"),
    ("MAX_RUNS", "0"),
    ("MAX_RUNS", "many"),
    ("MAX_MESSAGE_CHARS", "0"),
    ("CHECKPOINT_SECONDS", "0"),
    ("SEND_WINDOW_MS", "-1"),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda v: str(v)[:40])
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{name: value})
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line and "Value error" not in line and len(line) < 300
    if name == "API_KEYS" and len(value) > 5:
        assert value not in line and ALICE not in line and BOB not in line


def test_every_wrong_value_of_a_group_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, MAX_RUNS="0", MAX_MESSAGE_CHARS="x")
    assert "MAX_RUNS" in str(caught.value) and "MAX_MESSAGE_CHARS" in str(caught.value)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.7", "example.com", "127.0.0.1.example.com", "::ffff:8.8.8.8"]
)
def test_beyond_loopback_keys_are_wanted(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(SettingsError, match="API_KEYS"):
        load(monkeypatch, HOST=host)
    assert load(monkeypatch, HOST=host, API_KEYS=f"alice:{ALICE}").server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.8.7"])
def test_on_loopback_none_are_wanted(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, HOST=host).server.is_loopback


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://a:1", ("http://a:1",)),
        (" http://a:1 , https://b ,", ("http://a:1", "https://b")),
        ("http://a:1/", ("http://a:1",)),
        ("", ("http://localhost:3000", "http://localhost:5173")),
    ],
)
def test_cors_origins_are_split_at_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[str, ...]
) -> None:
    assert load(monkeypatch, CORS_ORIGINS=value).server.cors_origins == expected


def test_allowed_hosts_are_pairs_of_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = load(monkeypatch, URL_ALLOWED_HOSTS=" Intranet , [::1]:8080, bücher.example:9 ,").library.url_allowed_hosts
    assert parse_hosts(hosts) == {
        ("intranet", 80),
        ("intranet", 443),
        ("::1", 8080),
        ("xn--bcher-kva.example", 9),
    }


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, API_KEYS="", OPENAI_API_KEY="", CHROMA_URL="", DATABASE_URL="", LLM_MODEL="", PORT="")
    assert loaded == Settings.load(env_file=None)
    assert loaded.server.api_keys is None and loaded.models.openai_api_key is None


def test_env_file_is_read_the_environment_wins_unknown_names_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = tmp_path / ".env"
    env.write_text('# hello\nMAX_RUNS=7\nCHUNK_SIZE=300\nPOSTGRES_PASSWORD=x\nLLM_MODEL="simulated/words"\nTOP_K=\n')
    monkeypatch.setenv("MAX_RUNS", "9")
    loaded = Settings.load(env_file=env)
    assert (loaded.runs.max_runs, loaded.library.chunk_size, loaded.library.top_k) == (9, 300, 6)
    assert loaded.models.llm_model == "simulated/words"


def test_a_wrong_value_in_the_env_file_is_told_alike(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_RUNS=many\n")
    with pytest.raises(SettingsError, match=r"^MAX_RUNS: "):
        Settings.load(env_file=tmp_path / ".env")


def test_an_env_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MAX_RUNS=\xff\xfe\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        Settings.load(env_file=tmp_path / ".env")


def test_names_are_the_plain_ones_in_any_case_of_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, LOG_LEVEL="debug").logs.log_level == "DEBUG"


def test_no_secret_is_in_a_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, API_KEYS=f"alice:{ALICE}", OPENAI_API_KEY="sk-very-secret")
    for text in (repr(loaded), str(loaded), loaded.model_dump_json(), repr(loaded.server), f"{loaded.models!s}"):
        assert ALICE not in text and "sk-very-secret" not in text


def test_keys_are_parsed_by_name() -> None:
    assert parse_keys(SecretStr(f"alice:{ALICE}, bob:{BOB},")) == {ALICE: "alice", BOB: "bob"}
    assert parse_keys(None) == {}


def test_a_key_may_hold_a_colon() -> None:
    assert parse_keys(SecretStr(f"alice:{ALICE}:x")) == {f"{ALICE}:x": "alice"}


def test_data_lies_under_data_dir(tmp_path: Path) -> None:
    loaded = Settings.load(env_file=None, data_dir=tmp_path)
    assert loaded.storage.database_path.parent == tmp_path
    elsewhere = Settings.load(env_file=None, database_url=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere.storage.database_path == tmp_path / "other.db"


# --- keys and proxies


@pytest.mark.parametrize("around", ["{}\n", " {}\r\n", "\t{} ", "\ufeff{}"])
def test_white_space_around_keys_and_addresses_is_nothing(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        "OPENAI_API_KEY": around.format("sk-one"),
        "RERANKER_API_KEY": around.format("rk-one"),
        "API_KEYS": around.format(f"alice: {ALICE} ,\n bob:{BOB}").replace("\ufeff", ""),
        "OPENAI_BASE_URL": around.format("http://host/v1").replace("\ufeff", ""),
    }
    loaded = load(monkeypatch, **written)
    keys = (loaded.models.openai_api_key, loaded.library.reranker_api_key)
    assert [key.get_secret_value() if key is not None else None for key in keys] == ["sk-one", "rk-one"]
    assert loaded.models.openai_base_url == "http://host/v1"
    assert parse_keys(loaded.server.api_keys) == {ALICE: "alice", BOB: "bob"}


def test_a_key_of_white_space_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, OPENAI_API_KEY=" \n").models.openai_api_key is None


def test_a_proxy_that_nothing_needs_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "proxy.test:3128")
    network = load(monkeypatch, ALL_PROXY="socks5://proxy.test").network.network()
    assert network.proxies.proxy_for("https://llm.test") == "http://proxy.test:3128"


def test_proxies_and_addresses_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, HTTPS_PROXY="http://user:pass-word@proxy.test")
    assert "pass-word" not in repr(loaded) and "pass-word" not in repr(loaded.network.network())
