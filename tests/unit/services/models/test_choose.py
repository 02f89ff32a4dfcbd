"""What is known of a model when it is chosen."""

from pathlib import Path

import pytest

from backend.config.settings import Settings
from backend.services.models.catalog import ModelCatalog
from backend.services.models.choose import ModelChoice, ModelChooser


@pytest.mark.parametrize(
    ("name", "asked", "hides_reasoning"),
    [
        ("openai/gpt-4.1", {}, False),
        ("openai/gpt-5", {}, True),
        ("openai/a-model-of-tomorrow", {}, False),
        ("openai/a-model-of-tomorrow", {"reasoning_effort": "low"}, True),
        ("anthropic/claude-opus-4-5", {}, False),
        ("anthropic/claude-opus-4-5", {"reasoning_effort": "low"}, True),
        ("google/gemini-2.5-pro", {}, True),
        ("deepseek/deepseek-reasoner", {"reasoning_effort": "low"}, False),
        ("extractive/quotes", {}, False),
    ],
)
def test_who_thinks_out_of_sight(tmp_path: Path, name: str, asked: dict[str, object], hides_reasoning: bool) -> None:
    keys = [f"{provider}_API_KEY=sk-0123456789" for provider in ("OPENAI", "ANTHROPIC", "GOOGLE", "DEEPSEEK")]
    (tmp_path / ".env").write_text("\n".join(keys))
    settings = Settings.load(env_file=tmp_path / ".env", data_dir=tmp_path)
    chooser = ModelChooser(settings.models, settings.providers, ModelCatalog(settings.models, settings.providers))
    (candidate,) = chooser.choose(ModelChoice(name, parameters=asked))
    assert candidate.hides_reasoning is hides_reasoning
