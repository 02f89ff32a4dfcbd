"""`python -m bench start`: installed size, seconds to the first answer, memory with everything loaded."""

import re
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path

import httpx

from .document import FACTS
from .ingest import EMBEDDED, upload
from .process import ANY_CORE, ROOT, BenchError, Server
from .tables import print_table

STARTS = 5
MOST_RATIO = 2.0  # seconds to /health, as a multiple of a bare FastAPI app's
MOST_READY = 6.0  # seconds to /ready


def locked_packages() -> list[str]:
    """The names in the server's lock file."""
    text = (ROOT / "backend" / "requirements.txt").read_text()
    return sorted(set(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==", text, re.MULTILINE)))


def installed_bytes(package: str) -> int:
    """Bytes of a package's files, bytecode left out; 0 where the lock names it for another platform only."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return 0
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def bare_started_once() -> float:
    """Seconds to /health of a bare FastAPI app under uvicorn."""
    with Server(("bench.bare", "{port}"), "/health", core=ANY_CORE) as server:
        return server.seconds_to["/health"]


def started_once(folder: Path) -> tuple[float, float, float]:
    """Seconds to /health and to /ready, and MB of memory after one document and one query were embedded."""
    note = folder / "note.txt"
    note.write_text("\n".join(fact.sentence for fact in FACTS))
    env = {**EMBEDDED, "DATA_DIR": str(folder / "data")}
    with (
        Server(("backend.main",), "/health", env, core=ANY_CORE) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        health, ready = server.seconds_to["/health"], server.wait_for("/ready")
        upload(client, note)
        client.post("/search", json={"query": FACTS[0].question}).raise_for_status()
        time.sleep(2)
        return health, ready, server.memory_mb()


def run() -> None:
    """Prints the table. Raises BenchError if a goal is missed."""
    print("starting, in turns with a bare app ...", flush=True)
    samples: list[tuple[float, float, float]] = []
    bares: list[float] = []
    # The first start of each compiles its modules; it does not count.
    for turn in range(STARTS + 1):
        bare = bare_started_once()
        with tempfile.TemporaryDirectory() as folder:
            sample = started_once(Path(folder))
        if turn:
            bares.append(bare)
            samples.append(sample)
    bare = statistics.median(bares)
    health, ready, memory = (statistics.median(column) for column in zip(*samples, strict=True))
    sizes = {package: installed_bytes(package) for package in locked_packages()}
    largest = sorted(sizes, key=lambda package: -sizes[package])[:6]
    rows = [
        ["start to /health", f"{health:.2f} s", ""],
        ["start to /health of a bare FastAPI app", f"{bare:.2f} s", ""],
        ["as a multiple of the bare app's", f"{health / bare:.2f}x", f"at most {MOST_RATIO}x"],
        ["start to /ready", f"{ready:.2f} s", f"at most {MOST_READY:.0f} s"],
        ["memory, everything loaded, one query embedded", f"{memory:.0f} MB", ""],
        ["installed, without bytecode", f"{sum(sizes.values()) / 1e6:.0f} MB in {len(sizes)} packages", ""],
        ["the largest", ", ".join(f"{package} {sizes[package] / 1e6:.0f}" for package in largest), ""],
    ]
    print_table([f"start, median of {STARTS}", "", "goal"], rows)
    if health / bare > MOST_RATIO:
        raise BenchError(
            f"start: /health took {health / bare:.2f}x a bare app's time, at most {MOST_RATIO}x is the goal"
        )
    if ready > MOST_READY:
        raise BenchError(f"start: /ready took {ready:.1f} s, at most {MOST_READY:.0f} s is the goal")
