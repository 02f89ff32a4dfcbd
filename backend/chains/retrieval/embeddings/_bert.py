"""MiniLM's forward pass as an ONNX graph without weights.

Weights are not in the graph: it says where they are in the safetensors file, and onnxruntime maps them from
there. So nothing of the 90 MB is written a second time, and the graph itself is a few kilobytes.

    token ids (batch, tokens) --embedding, 6 x (attention, feed forward)--> states
    states --mean over real tokens, L2 norm--> vectors

Attention is onnxruntime's fused operator; matrices stay as PyTorch stores them, (out, in), which Gemm takes
as `transB`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Part of the cache's file name: raise it with every change to the graph.
GRAPH_VERSION = 2

_EPSILON = 1e-12
_FUSED = "com.microsoft"


@dataclass(frozen=True)
class Weight:
    """A float32 tensor inside a file; offset and length in bytes."""

    shape: tuple[int, ...]
    offset: int
    length: int


class _Graph:
    """Collects nodes and names their results."""

    def __init__(self) -> None:
        from onnx import helper

        self._make_node = helper.make_node
        self.nodes: list[Any] = []

    def add(self, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        result = f"n{len(self.nodes)}"
        self.nodes.append(self._make_node(operator, list(inputs), [result], domain=domain, **attributes))
        return result


def build(weights: Mapping[str, Weight], location: str, *, hidden: int, heads: int, layers: int) -> bytes:
    """The serialized model.

    `weights` tells where every weight is in the safetensors file, `location` is that file's name. Inputs:
    `ids` and `mask`, int64 (batch, tokens); outputs: `vectors`, float32 (batch, hidden), of length 1, and `states`,
    float32 (batch, tokens, hidden), which is worth nothing where the mask is 0.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    used: list[str] = []

    def weight(name: str) -> str:
        used.append(name)
        return name

    def norm(value: str, prefix: str) -> str:
        scale, bias = weight(f"{prefix}.LayerNorm.weight"), weight(f"{prefix}.LayerNorm.bias")
        return graph.add("LayerNormalization", [value, scale, bias], axis=-1, epsilon=_EPSILON)

    def linear(flat: str, prefix: str) -> str:
        return graph.add("Gemm", [flat, weight(f"{prefix}.weight"), weight(f"{prefix}.bias")], transB=1)

    def layer(flat: str, prefix: str) -> str:
        q, k, v = (
            graph.add("Reshape", [linear(flat, f"{prefix}.attention.self.{part}"), "shape"])
            for part in ("query", "key", "value")
        )
        attended = graph.add("MultiHeadAttention", [q, k, v, "", "lengths"], domain=_FUSED, num_heads=heads)
        attended = linear(graph.add("Reshape", [attended, "flat"]), f"{prefix}.attention.output.dense")
        flat = norm(graph.add("Add", [attended, flat]), f"{prefix}.attention.output")
        inner = graph.add("Gelu", [linear(flat, f"{prefix}.intermediate.dense")])
        return norm(graph.add("Add", [linear(inner, f"{prefix}.output.dense"), flat]), f"{prefix}.output")

    words = graph.add("Gather", [weight("embeddings.word_embeddings.weight"), "ids"])
    places = graph.add("Slice", [weight("embeddings.position_embeddings.weight"), "zero", _tokens(graph), "zero"])
    kind = graph.add("Slice", [weight("embeddings.token_type_embeddings.weight"), "zero", "one", "zero"])
    summed = graph.add("Add", [graph.add("Add", [words, places]), kind])
    flat = graph.add("Reshape", [norm(summed, "embeddings"), "flat"])
    graph.nodes.append(helper.make_node("Shape", [words], ["shape"]))
    graph.nodes.append(
        helper.make_node(
            "Cast", [graph.add("ReduceSum", ["mask", "one"], keepdims=0)], ["lengths"], to=TensorProto.INT32
        )
    )
    for number in range(layers):
        flat = layer(flat, f"encoder.layer.{number}")

    weights_by_token = graph.add("Unsqueeze", [graph.add("Cast", ["mask"], to=TensorProto.FLOAT), "two"])
    graph.nodes.append(helper.make_node("Reshape", [flat, "shape"], ["states"]))
    tokens = graph.add("Mul", ["states", weights_by_token])
    # The norm that follows makes dividing by the number of tokens needless.
    total = graph.add("ReduceSum", [tokens, "one"], keepdims=0)
    length = graph.add("ReduceL2", [total, "one"], keepdims=1)
    graph.nodes.append(helper.make_node("Div", [total, length], ["vectors"]))
    return _serialize(graph.nodes, {name: weights[name] for name in used}, location, hidden)


def _tokens(graph: _Graph) -> str:
    return graph.add("Shape", ["ids"], start=1, end=2)


def _serialize(nodes: list[Any], weights: Mapping[str, Weight], location: str, hidden: int) -> bytes:
    from onnx import TensorProto, helper

    def constant(name: str, values: list[int]) -> Any:
        return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)

    constants = [
        constant("zero", [0]),
        constant("one", [1]),
        constant("two", [2]),
        constant("flat", [-1, hidden]),
    ]
    graph = helper.make_graph(
        nodes,
        "sentence-embedding",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", hidden]),
            helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", hidden]),
        ],
        constants + [_external(name, place, location) for name, place in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _external(name: str, place: Weight, location: str) -> Any:
    """A weight that stays in its own file; onnxruntime maps it into memory from there."""
    from onnx import TensorProto

    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=place.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", place.offset), ("length", place.length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor
