"""Products of int8 matrices, run by onnxruntime beside those of float32."""

import importlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.chains.retrieval.embeddings import _int8
from backend.chains.retrieval.embeddings._graph import Graph

Array = NDArray[Any]
PEAKS = np.abs(np.random.RandomState(2).standard_cauchy(64)).astype(np.float32) + 1
MATRIX = np.random.RandomState(1).standard_normal((48, 64)).astype(np.float32)


def rows_of(count: int) -> Array:
    """Columns as uneven as those of a language model, within their peaks."""
    return (np.random.RandomState(3).uniform(-1, 1, (count, 64)) * PEAKS).astype(np.float32)


def run(kind: str, rows: Array, matrix: Array, peaks: Array = PEAKS) -> Array:
    from onnx import TensorProto, helper

    graph = Graph()
    graph.constant(np.array([1], np.int64), "one")
    if kind == "smoothed":
        result = _int8.product(graph, *_int8.smoothed(graph, "rows", peaks, matrix))
    else:
        result = _int8.product_by_row(graph, "rows", matrix, gelu=kind == "gelu")
    made = helper.make_graph(
        graph._nodes,
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", matrix.shape[1]])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", len(matrix)])],
        graph._constants,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    onnxruntime: Any = importlib.import_module("onnxruntime")
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"rows": rows})[0]


@pytest.mark.parametrize("kind", ["smoothed", "by row", "gelu"])
def test_a_product_is_close_to_that_of_float32(kind: str) -> None:
    rows = rows_of(200)
    if kind == "gelu":
        rows = np.maximum(rows, -0.17)
    expected = rows @ MATRIX.T
    wrong = np.linalg.norm(run(kind, rows, MATRIX) - expected) / np.linalg.norm(expected)
    assert wrong < 0.02


@pytest.mark.parametrize("kind", ["smoothed", "by row", "gelu"])
def test_a_row_is_what_it_is_alone(kind: str) -> None:
    rows = np.maximum(rows_of(20), -0.17)
    rows[3] *= 1e3
    together = run(kind, rows, MATRIX)
    for at in range(len(rows)):
        np.testing.assert_allclose(run(kind, rows[at : at + 1], MATRIX)[0], together[at], rtol=1e-6, atol=1e-5)


def test_no_column_costs_the_others_their_precision() -> None:
    """What smoothing is for: a column a hundred times as large, which the matrix hardly looks at."""
    peaks = np.ones(64, np.float32)
    peaks[7] = 100
    rows, matrix = rows_of(200) / PEAKS * peaks, MATRIX / peaks
    expected = rows @ matrix.T
    wrong = [np.linalg.norm(run(kind, rows, matrix, peaks) - expected) for kind in ("smoothed", "by row")]
    assert wrong[0] < wrong[1] / 2


def test_two_products_fit_into_sixteen_bits() -> None:
    """Else processors without VNNI would give other sums."""
    matrix = (np.sign(MATRIX) * np.abs(MATRIX) ** 0.1).astype(np.float32)  # nearly all of it close to the largest
    graph = Graph()
    _int8._matrix(graph, matrix)
    from onnx import numpy_helper

    codes = numpy_helper.to_array(graph._constants[0]).astype(int)
    sums = codes.reshape(-1, 2, codes.shape[1]).sum(1)
    assert codes.shape == (64, 48)
    assert np.abs(codes).max() > 64 and np.abs(sums).max() <= 128
    scales = numpy_helper.to_array(graph._constants[1])
    assert np.abs(codes * scales - matrix.T).max() < 0.3
