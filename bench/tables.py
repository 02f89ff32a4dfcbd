"""The figures as Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stream import Figures

COLUMNS = (
    "server, one process",
    "CPU µs per token, 32 streams flat out",
    "CPU µs per token, 300 streams of 10 tokens/s",
    "delay p50 at that load",
    "delay p99",
    "delay p50, one stream of 100 tokens/s",
    "delay p99, that one",
    "CPU ms per 1-token request",
    "first token p50, idle",
    "memory, idle",
)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print()
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


def figure(value: float) -> str:
    """The number with two or three significant digits: 0.83, 5.5, 27, 1,280."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def milliseconds(value: float) -> str:
    return f"{figure(value / 1e3)} s" if value >= 1000 else f"{figure(value)} ms"


def print_streams(rows: "dict[str, Figures]") -> None:
    print_table(COLUMNS, [_absolute(row) for row in rows.values()])
    for base, label in (("parsed", "the hand-written parsed floor"), ("plain", "the plain app")):
        if base in rows and len(rows) > 1:
            print(f"\nAs multiples of {label}, same run:")
            head = [COLUMNS[0], COLUMNS[1], COLUMNS[2], *COLUMNS[7:]]
            print_table(head, [_ratios(row, rows[base]) for row in rows.values()])
    for row in rows.values():
        if row.health_ratio is not None and row.health_ms is not None and row.started_ms is not None:
            health = f"/health p50 {row.health_ms:.2f} ms, {row.health_ratio:.1f}x a bare FastAPI app's"
            started = f"{row.started_ms:.1f} ms of CPU from the POST until run.started is on the wire"
            print(f"\n{row.name}: {health};\n{started}.")


def _absolute(row: "Figures") -> list[str]:
    late = "" if row.kept_up > 0.97 else f" (can't keep up: {row.kept_up:.0%})"
    return [
        row.name,
        figure(row.flat_us),
        figure(row.paced_us),
        milliseconds(row.delay_p50_ms) + late,
        milliseconds(row.delay_p99_ms),
        milliseconds(row.lone_p50_ms),
        milliseconds(row.lone_p99_ms),
        figure(row.request_ms),
        milliseconds(row.first_ms),
        f"{row.memory_mb:.0f} MB",
    ]


def _ratios(row: "Figures", base: "Figures") -> list[str]:
    names = ("flat_us", "paced_us", "request_ms", "first_ms", "memory_mb")
    return [row.name, *(f"{getattr(row, name) / getattr(base, name):.2f}x" for name in names)]
