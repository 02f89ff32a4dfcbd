"""`python -m evals.peaks FILE...`: how large what MiniLM's int8 products take gets, from texts of any kind.

Writes `backend/chains/retrieval/embeddings/minilm-peaks.npy`: float16 (layers, 2, hidden), the largest size in
each column of what goes into attention and of what goes into the feed forward part. They hardly depend on the texts, as
both come out of a normalisation. After a change, raise `GRAPH_VERSION`.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from backend.chains.retrieval.embeddings import minilm

Array = NDArray[Any]

_PIECE = 600  # characters: about as long as a chunk
# Kinds of text that files may not have.
_SHORT = """
Der Vertrag kann mit einer Frist von drei Monaten zum Ende des Kalenderjahres gekündigt werden.
Le locataire est tenu de payer le loyer et les charges aux termes convenus.
El paciente presentó fiebre de 39 °C durante cinco días.
本合同自双方签字盖章之日起生效，有效期三年。
本製品の保証期間はご購入日から一年間です。
계약 기간은 서명일로부터 3년입니다.
Договор вступает в силу с момента подписания.
العقد شريعة المتعاقدين
अनुबंध तीन वर्ष के लिए मान्य है।
12,345.67 | 89.1% | 2024-03-31 | USD | 0.00 | -7.5e-3 | EUR
a b c d e f g h i j k l m n o p q r s t u v w x y z
NOTHING BUT CAPITALS IN THIS LINE!!!
xqzvw kjhgf pmbtr lsdnc
What is the notice period?
the
7
... --- ...
😀 🎉
https://example.com/a?b=c&d=e#f
"""


def main(files: Sequence[str]) -> None:
    """Measures and writes."""
    texts = [text for file in files for text in _pieces(Path(file).read_text(encoding="utf-8"))]
    texts += _SHORT.strip().splitlines()
    folder = minilm._model_folder()
    weights, tokenizer = load_file(folder / minilm._WEIGHTS), minilm._tokenizer(folder)
    found = np.zeros((minilm.LAYERS, 2, minilm.DIMENSION), np.float32)
    for text in texts:
        for layer, parts in enumerate(_inputs(weights, tokenizer.encode(text).ids)):
            found[layer] = np.maximum(found[layer], [np.abs(part).max(0) for part in parts])
    np.save(minilm.PEAKS, found.astype(np.float16))
    print(f"{len(texts)} texts, peaks from {found.min():.1f} to {found.max():.1f}")


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _inputs(weights: dict[str, Array], ids: Sequence[int]) -> list[tuple[Array, Array]]:
    """What goes into attention and into the feed forward part of each layer, float32 (tokens, hidden): BERT as its
    paper has it.
    """

    def linear(value: Array, name: str) -> Array:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(value: Array, name: str) -> Array:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attended(value: Array, name: str) -> Array:
        query, key, spoken = (
            linear(value, f"{name}.{part}").reshape(len(value), minilm.HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return (shares / shares.sum(-1, keepdims=True) @ spoken).swapaxes(0, 1).reshape(value.shape)

    table = "embeddings.{}_embeddings.weight"
    hidden = weights[table.format("word")][ids] + weights[table.format("position")][: len(ids)]
    hidden = norm(hidden + weights[table.format("token_type")][0], "embeddings.LayerNorm")
    found: list[tuple[Array, Array]] = []
    for number in range(minilm.LAYERS):
        name = f"encoder.layer.{number}"
        before = hidden
        joined = hidden + linear(attended(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense")
        hidden = norm(joined, f"{name}.attention.output.LayerNorm")
        found.append((before, hidden))
        inner = linear(hidden, f"{name}.intermediate.dense")
        inner = inner / (1 + np.exp(-1.702 * inner))  # within a hundredth of gelu
        hidden = norm(hidden + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
