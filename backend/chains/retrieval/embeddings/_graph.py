"""Builds an ONNX graph. `onnx` is imported only when a graph is built: a server with a cached graph never needs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FUSED = "com.microsoft"
"""The domain of onnxruntime's own operators."""


@dataclass(frozen=True)
class Weight:
    """A float32 tensor inside a file; offset and length in bytes."""

    shape: tuple[int, ...]
    offset: int
    length: int


class Graph:
    """Collects nodes and constants, and names the results of nodes."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._make_node = helper.make_node
        self._from_array = numpy_helper.from_array
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(
        self, operator: str, inputs: Sequence[str], domain: str = "", result: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one result. Returns the result's name."""
        name = result or f"n{len(self._nodes)}"
        self._nodes.append(self._make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, values: Any, name: str | None = None) -> str:
        """Add an array to the graph. Returns its name."""
        name = name or f"c{len(self._constants)}"
        self._constants.append(self._from_array(values, name))
        return name

    def serialize(
        self,
        inputs: Sequence[str],
        outputs: Mapping[str, Sequence[str | int]],
        weights: Mapping[str, Weight],
        location: str,
    ) -> bytes:
        """The model as bytes.

        `inputs` are int64 (batch, tokens), `outputs` float32 of these shapes. `weights` are in the file `location`.
        """
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self._nodes,
            "sentence-embedding",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self._constants + [_external(name, place, location) for name, place in weights.items()],
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
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
