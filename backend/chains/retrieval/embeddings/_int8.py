"""Products of float32 rows and int8 matrices, about twice as fast as in float32.

    rows --8 bits--> codes;   codes x int8 matrix --scale of the codes, scale of each column--> float32

The scale of a row (a token) never depends on the other rows of its batch, so the result doesn't either. If the largest
value of each column is known, all rows share one scale; first, each column is divided by a factor of its own, by which
the matrix is multiplied. So a column with large values doesn't cost the others their precision (SmoothQuant,
arXiv:2211.10438). Otherwise each row has a scale of its own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.chains.retrieval.embeddings._graph import FUSED, Graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

# The largest code of a weight. Processors without VNNI add two products in 16 bits. Codes of rows are up to 255, so the
# codes of two weights may add up to 128. With 84, few pairs are larger, and those are made smaller.
_LARGEST = 84
_PAIR = 128
# The share of the columns' differences that is moved to the matrix.
_TO_MATRIX = 0.65
# The minimum of gelu(x).
_GELU_LOWEST = -0.17


@dataclass(frozen=True, slots=True)
class Codes:
    """Names in a graph: `codes` is uint8 (rows, columns). A value is (code - zero) * scale, times the row's divisor."""

    codes: str
    scale: str
    zero: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Names in a graph: `codes`, int8 (in, out), and the scale of each column, float32 (out,)."""

    codes: str
    scales: str


def smoothed(graph: Graph, rows: str, peaks: "Array", matrix: "Array") -> tuple[Codes, Matrix]:
    """The rows, and the matrix by which they are multiplied: (out, in), as PyTorch stores it.

    `peaks`, (in,), has the largest absolute value that is expected in each column; larger values are cut.
    """
    import numpy as np

    parts = peaks**_TO_MATRIX / np.abs(matrix).max(axis=0) ** (1 - _TO_MATRIX)
    parts *= (peaks / parts).max()
    even = graph.add("Mul", [rows, graph.constant((1 / parts).astype(np.float32))])
    return _codes(graph, even, -1), _matrix(graph, matrix * parts)


def product_by_row(graph: Graph, rows: str, matrix: "Array", *, gelu: bool) -> str:
    """The product with a matrix (out, in): float32 (rows, out); each row has a scale of its own.

    `gelu`: the rows are results of a gelu, so nearly all codes are used for positive values.
    """
    import numpy as np

    peaks = graph.add("ReduceMax", [rows if gelu else graph.add("Abs", [rows]), "one"], keepdims=1)
    floor = 1.0 if gelu else 1e-6
    peaks = graph.add("Max", [peaks, graph.constant(np.array(floor, np.float32))])
    codes = _codes(graph, graph.add("Div", [rows, peaks]), _GELU_LOWEST / floor if gelu else -1)
    return graph.add("Mul", [product(graph, codes, _matrix(graph, matrix)), peaks])


def product(graph: Graph, rows: Codes, matrix: Matrix, bias: str = "") -> str:
    """The product: float32 (rows, out)."""
    inputs = [rows.codes, matrix.codes, rows.scale, matrix.scales, rows.zero, "", bias]
    return graph.add("MatMulIntegerToFloat", inputs, FUSED)


def _codes(graph: Graph, rows: str, lowest: float) -> Codes:
    """The codes of values from `lowest` to 1."""
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
