"""Products of float32 rows and int8 matrices, about twice as fast as in float32.

    rows --8 bits--> codes;   codes x int8 matrix --scale of the codes, scale of each column--> float32

A row (a token) is never scaled by what else is in its batch, so neither is what comes out. Where the columns have known
peaks, all rows share one scale, and each column is divided by its own part first, by which the matrix is multiplied: so
no column with large values costs the others their precision (SmoothQuant, arXiv:2211.10438). Elsewhere each row has a
scale of its own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.chains.retrieval.embeddings._graph import FUSED, Graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

# The largest code of a weight. Processors without VNNI sum two products in 16 bits: codes of rows are up to 255, so
# those of two weights may come to 128. With 84 few pairs are beyond, and made smaller.
_LARGEST = 84
_PAIR = 128
# How much of the unevenness of columns goes to the matrix.
_TO_MATRIX = 0.65
# What gelu(x) is never below.
_GELU_LOWEST = -0.17


@dataclass(frozen=True, slots=True)
class Codes:
    """Names in a graph: `codes`, uint8 (rows, columns), stand for (code - zero) * scale, times what their row was
    divided by.
    """

    codes: str
    scale: str
    zero: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Names in a graph: `codes`, int8 (in, out), and the scale of each column, float32 (out,)."""

    codes: str
    scales: str


def smoothed(graph: Graph, rows: str, peaks: "Array", matrix: "Array") -> tuple[Codes, Matrix]:
    """Rows and the matrix that they are multiplied with, (out, in) as PyTorch stores it. `peaks`, (in,): the largest
    size that is to be expected in each column; what is larger is cut.
    """
    import numpy as np

    parts = peaks**_TO_MATRIX / np.abs(matrix).max(axis=0) ** (1 - _TO_MATRIX)
    parts *= (peaks / parts).max()
    even = graph.add("Mul", [rows, graph.constant((1 / parts).astype(np.float32))])
    return _codes(graph, even, -1), _matrix(graph, matrix * parts)


def product_by_row(graph: Graph, rows: str, matrix: "Array", *, gelu: bool) -> str:
    """float32 (rows, out), of a matrix (out, in); each row has a scale of its own. `gelu`: rows came out of one, so
    that nearly all codes are for what is positive.
    """
    import numpy as np

    peaks = graph.add("ReduceMax", [rows if gelu else graph.add("Abs", [rows]), "one"], keepdims=1)
    floor = 1.0 if gelu else 1e-6
    peaks = graph.add("Max", [peaks, graph.constant(np.array(floor, np.float32))])
    codes = _codes(graph, graph.add("Div", [rows, peaks]), _GELU_LOWEST / floor if gelu else -1)
    return graph.add("Mul", [product(graph, codes, _matrix(graph, matrix)), peaks])


def product(graph: Graph, rows: Codes, matrix: Matrix, bias: str = "") -> str:
    """float32 (rows, out)."""
    inputs = [rows.codes, matrix.codes, rows.scale, matrix.scales, rows.zero, "", bias]
    return graph.add("MatMulIntegerToFloat", inputs, FUSED)


def _codes(graph: Graph, rows: str, lowest: float) -> Codes:
    """Of values from `lowest` to 1."""
    import numpy as np

    step = (1 - lowest) / 255
    scale = graph.constant(np.array(step, np.float32))
    zero = graph.constant(np.array(round(-lowest / step), np.uint8))
    return Codes(graph.add("QuantizeLinear", [rows, scale, zero]), scale, zero)


def _matrix(graph: Graph, matrix: "Array") -> Matrix:
    import numpy as np

    scales = np.maximum(np.abs(matrix).max(axis=1), 1e-12) / _LARGEST
    pairs = np.rint(matrix / scales[:, None]).T.reshape(-1, 2, len(matrix))
    sums = np.abs(pairs.sum(axis=1, keepdims=True))
    codes = np.trunc(pairs * np.minimum(1, _PAIR / np.maximum(sums, 1))).reshape(-1, len(matrix))
    return Matrix(graph.constant(codes.astype(np.int8)), graph.constant(scales.astype(np.float32)))
