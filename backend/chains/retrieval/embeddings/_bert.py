"""MiniLM's forward pass as an ONNX graph.

The matrices are in the graph, as int8 (10 MB, see `_int8.py`). For all other weights, the graph has their place in the
safetensors file (90 MB), and onnxruntime maps them from there, so they are not copied.

    token ids (batch, tokens) --embedding, 6 x (attention, feed forward)--> states
    states --mean over real tokens, L2 norm--> vectors

Attention, and sums with what follows them, are onnxruntime's fused operators.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from backend.chains.retrieval.embeddings._graph import FUSED, Graph, Weight
from backend.chains.retrieval.embeddings._int8 import Codes, Matrix, product, product_by_row, smoothed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Part of the cache's file name: increase it with every change of the graph.
GRAPH_VERSION = 4

_EPSILON = 1e-12


def build(
    weights: Mapping[str, Weight],
    location: str,
    read: "Callable[[str], NDArray[np.float32]]",
    peaks: "NDArray[np.float32]",
    *,
    hidden: int,
    heads: int,
    layers: int,
) -> bytes:
    """The serialized model.

    `weights` has the place of every weight in the safetensors file, `location` is that file's name, `read` returns a
    weight as an array. Inputs: `ids` and `mask`, int64 (batch, tokens). Outputs: `vectors`, float32 (batch, hidden), of
    length 1, and `states`, float32 (batch, tokens, hidden), which is meaningless for tokens with mask 0.
    """
    import numpy as np
    from onnx import TensorProto

    graph = Graph()
    for name, values in (("zero", [0]), ("one", [1]), ("two", [2]), ("flat", [-1, hidden])):
        graph.constant(np.array(values, np.int64), name)
    graph.constant(np.zeros(3 * hidden, np.int8), "zeros")
    used: dict[str, Weight] = {}

    def weight(name: str) -> str:
        used[name] = weights[name]
        return name

    def norm(rows: str, prefix: str) -> str:
        parts = [weight(f"{prefix}.LayerNorm.weight"), weight(f"{prefix}.LayerNorm.bias")]
        return graph.add("LayerNormalization", [rows, *parts], axis=-1, epsilon=_EPSILON)

    def joined(flat: str, rows: str, dense: str, *, gelu: bool = False) -> str:
        added = product_by_row(graph, rows, read(f"{dense}.weight"), gelu=gelu)
        return graph.add("Add", [graph.add("Add", [added, weight(f"{dense}.bias")]), flat])

    def layer(flat: str, number: int) -> str:
        prefix = f"encoder.layer.{number}"
        parts = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        matrix, bias = (np.concatenate([read(f"{part}.{kind}") for part in parts]) for kind in ("weight", "bias"))
        attended = attention(*smoothed(graph, flat, peaks[number, 0], matrix), graph.constant(bias))
        flat = norm(joined(flat, attended, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output")

        dense = f"{prefix}.intermediate.dense"
        codes, inner = smoothed(graph, flat, peaks[number, 1], read(f"{dense}.weight"))
        active = graph.add("Gelu", [product(graph, codes, inner, weight(f"{dense}.bias"))])
        return norm(joined(flat, active, f"{prefix}.output.dense", gelu=True), f"{prefix}.output")

    def attention(rows: Codes, matrix: Matrix, bias: str) -> str:
        codes = graph.add("Reshape", [rows.codes, "shape"])
        inputs = [codes, matrix.codes, bias, rows.scale, matrix.scales, "lengths", rows.zero, "zeros"]
        return graph.add("Reshape", [graph.add("QAttention", inputs, FUSED, num_heads=heads), "flat"])

    words = graph.add("Gather", [weight("embeddings.word_embeddings.weight"), "ids"])
    tokens = graph.add("Shape", ["ids"], start=1, end=2)
    places = graph.add("Slice", [weight("embeddings.position_embeddings.weight"), "zero", tokens, "zero"])
    kind = graph.add("Slice", [weight("embeddings.token_type_embeddings.weight"), "zero", "one", "zero"])
    summed = graph.add("Add", [graph.add("Add", [words, places]), kind])
    flat = graph.add("Reshape", [norm(summed, "embeddings"), "flat"])
    graph.add("Shape", [words], result="shape")
    lengths = graph.add("ReduceSum", ["mask", "one"], keepdims=0)
    graph.add("Cast", [lengths], result="lengths", to=TensorProto.INT32)
    for number in range(layers):
        flat = layer(flat, number)
    _pooled(graph, flat)
    shapes: dict[str, list[str | int]] = {"vectors": ["batch", hidden], "states": ["batch", "tokens", hidden]}
    return graph.serialize(["ids", "mask"], shapes, used, location)


def _pooled(graph: Graph, flat: str) -> None:
    from onnx import TensorProto

    real = graph.add("Unsqueeze", [graph.add("Cast", ["mask"], to=TensorProto.FLOAT), "two"])
    graph.add("Reshape", [flat, "shape"], result="states")
    # No division by the number of tokens is needed, because the result is normalised.
    total = graph.add("ReduceSum", [graph.add("Mul", ["states", real]), "one"], keepdims=0)
    graph.add("Div", [total, graph.add("ReduceL2", [total, "one"], keepdims=1)], result="vectors")
