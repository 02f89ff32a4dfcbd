"""CONFIG_FILE: any setting in one file, below the environment and `.env`; a wrong name or value is one clear line."""

from pathlib import Path

import pytest

from backend.config.settings import Settings, SettingsError

YAML = """
server:
  port: 8080
  cors_origins: [https://app.example.com, https://www.example.com]
RELOAD: false
max_runs: 7
storage:
llm_model: fast
xai_base_url: http://127.0.0.1:9/v1
providers:
  work: {kind: openai, base_url: http://127.0.0.1:8/v1}
aliases:
  fast: work/m
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("PORT", "MAX_RUNS", "LLM_MODEL", "CORS_ORIGINS", "RELOAD", "MODELS_FILE"):
        monkeypatch.delenv(name, raising=False)

    def load_file(text: str, name: str = "config.yaml", env: str = "") -> Settings:
        (tmp_path / name).write_text(text)
        (tmp_path / ".env").write_text(env)
        monkeypatch.setenv("CONFIG_FILE", str(tmp_path / name))
        return Settings.load(env_file=tmp_path / ".env")

    return load_file


def test_all_settings_and_the_models_are_in_one_file(load) -> None:
    settings = load(YAML)
    assert (settings.server.port, settings.server.reload, settings.runs.max_runs) == (8080, False, 7)
    assert settings.server.cors_origins == ("https://app.example.com", "https://www.example.com")
    assert settings.models.llm_model == "fast"
    assert settings.providers.aliases["fast"] == ("work/m",)
    assert settings.providers.base_url("xai") == "http://127.0.0.1:9/v1"


def test_toml_says_the_same(load) -> None:
    settings = load('max_runs = 7\n[server]\nport = 8080\n[aliases]\nfast = "openai/m"\n', "config.toml")
    assert (settings.server.port, settings.runs.max_runs) == (8080, 7)
    assert settings.providers.aliases["fast"] == ("openai/m",)


def test_the_environment_wins_over_env_over_the_file(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RUNS", "9")
    monkeypatch.setenv("XAI_BASE_URL", "http://127.0.0.1:10/v1")
    settings = load(YAML, env="PORT=8090\nMAX_RUNS=8\n")
    assert (settings.server.port, settings.runs.max_runs) == (8090, 9)
    assert settings.providers.base_url("xai") == "http://127.0.0.1:10/v1"


def test_an_empty_variable_leaves_the_value_of_the_file(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RUNS", "")
    assert load(YAML, env="PORT=\n").runs.max_runs == 7
    assert load(YAML).server.port == 8080


def test_env_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONFIG_FILE", raising=False)
    (tmp_path / "c.yaml").write_text("max_runs: 7")
    (tmp_path / ".env").write_text(f"CONFIG_FILE={tmp_path / 'c.yaml'}\n")
    settings = Settings.load(env_file=tmp_path / ".env")
    assert (settings.runs.max_runs, settings.server.config_file) == (7, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prt: 80", r"^CONFIG_FILE: .*prt is no setting\. Did you mean port\?$"),
        ("server: {hots: a}", r"^CONFIG_FILE: .*hots is no setting\. Did you mean host\?$"),
        ("wholly: different", r"^CONFIG_FILE: .*wholly is no setting\. \.env\.example lists all settings\.$"),
        ("port: eighty", r"^PORT: "),
        ("port: {a: b}", r"^CONFIG_FILE: .*port must be a text, a number"),
        ("server: 8001", r"^CONFIG_FILE: .*server must have settings"),
        ("port: 1\nserver: {port: 2}", r"^CONFIG_FILE: .*port occurs twice$"),
        ("- port", r"^CONFIG_FILE: .*must have settings, such as port: 8001$"),
        ("port: [", r"^CONFIG_FILE: .*is no YAML \(line 1\)$"),
        ("aliases: {Fast: m}", r"^CONFIG_FILE: .*'Fast': names have lower-case"),
        ("api_keys: alice:secretsecret", r"^API_KEYS: (?!.*secretsecret)"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(load, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refusal:
        load(text)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(SettingsError, match=r"^CONFIG_FILE: .*none\.yaml: can't be read"):
        Settings.load(env_file=None)


def test_the_models_are_in_one_file_only(load, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("aliases: {other: openai/m}")
    with pytest.raises(SettingsError, match=r"^MODELS_FILE: CONFIG_FILE has its sections already"):
        load(YAML + f"\nmodels_file: {tmp_path / 'models.yaml'}\n")
