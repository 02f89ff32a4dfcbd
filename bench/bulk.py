"""Many small documents at once, and what those who chat meanwhile notice of it: a part of `python -m bench ingest`."""

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from httpx_sse import connect_sse

from .ingest import EMBEDDED, PATIENCE
from .language import TOPICS, Language
from .pings import pings
from .process import ANY_CORE, BenchError, Server
from .tables import milliseconds, print_table

FILES = 20  # of one upload
SIZE = 800  # characters of a document
PAUSE = 0.1  # seconds between two questions


@dataclass
class Beside:
    """Seconds from a question to its first event, and of `/health`."""

    first_event: list[float]
    health: list[float]


class Loader(threading.Thread):
    """Uploads documents, and is done when all of them can be searched."""

    def __init__(self, url: str, documents: int) -> None:
        super().__init__(daemon=True)
        self._url, self._documents = url, documents
        self.error: Exception | None = None
        self.seconds = 0.0

    def run(self) -> None:
        began = time.monotonic()
        try:
            self._load()
        except Exception as error:
            self.error = error
        self.seconds = time.monotonic() - began

    def _load(self) -> None:
        language = Language()
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            ids: list[str] = []
            for at in range(0, self._documents, FILES):
                numbers = range(at, min(at + FILES, self._documents))
                files = [("file", (f"note-{n}.txt", language.text(n % TOPICS, SIZE).encode())) for n in numbers]
                reply = client.post("/documents/upload", files=files).raise_for_status()
                ids += [each["id"] for each in reply.json()["documents"]]
            # They are read in the order of their uploads.
            for each in ids:
                while (status := client.get(f"/documents/{each}").raise_for_status().json()["status"]) != "ready":
                    if status == "failed":
                        raise BenchError(f"document {each} failed")
                    time.sleep(0.25)


def first_event(client: httpx.Client, question: str) -> float:
    """Seconds from a question to its first event; the answer is read to its end."""
    start = time.perf_counter()
    first: float | None = None
    with connect_sse(client, "POST", "/chat", json={"message": question}) as source:
        source.response.raise_for_status()
        for sse in source.iter_sse():
            first = first or time.perf_counter() - start
            if (event := sse.json())["type"] == "run.failed":
                raise BenchError(f"an answer beside the load failed: {event['error']}")
    if first is None:
        raise BenchError("an answer beside the load had no event")
    return first


def chatted(server: Server, going_on: "threading.Thread | None", seconds: float) -> Beside:
    """Chat and ask for `/health` in turns while the thread lives; without one, for some seconds."""
    found, language, end = Beside([], []), Language(), time.monotonic() + seconds
    health = pings(server.port)
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        while going_on.is_alive() if going_on is not None else time.monotonic() < end:
            found.first_event.append(first_event(client, language.question(len(found.health) % TOPICS)))
            found.health.append(next(health))
            time.sleep(PAUSE)
    return found


def run(documents: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = {**EMBEDDED, "DATA_DIR": str(Path(folder) / "data")}
        with Server(("backend.main",), "/ready", env, core=ANY_CORE) as server:
            print(f"loading {documents:,} small documents ...", flush=True)
            chatted(server, None, seconds=2)
            before, idle = server.memory_mb(), chatted(server, None, seconds=5)
            loader = Loader(server.url, documents)
            loader.start()
            busy = chatted(server, loader, seconds=0)
            loader.join()
            if loader.error is not None:
                raise BenchError(f"the load failed: {loader.error}")
            after = server.memory_mb()
    rows = [
        ["until all can be searched", f"{loader.seconds:.1f} s, {documents / loader.seconds:.1f} documents a second"],
        ["first event p50 and p95, idle", _both(idle.first_event)],
        ["first event p50 and p95, beside the load (goal: p95 under 50 ms)", _both(busy.first_event)],
        ["/health p50 and p95, beside the load", _both(busy.health)],
        ["memory before and after", f"{before:.0f} MB, {after:.0f} MB"],
    ]
    print_table([f"{documents:,} documents of {SIZE} characters", ""], rows)


def _both(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[int(0.95 * len(ordered))]
    return f"{milliseconds(p50 * 1e3)}, {milliseconds(p95 * 1e3)}"
