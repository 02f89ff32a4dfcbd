"""Many small documents at once, and how they slow down chats meanwhile: a part of `python -m bench ingest`."""

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
class ChatTimes:
    """Times of chats and of `/health` requests, in seconds. `first_event`: from a question to its first event."""

    first_event: list[float]
    health: list[float]


class Loader(threading.Thread):
    """A thread that uploads documents and ends when all of them can be searched."""

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
                ids += [document["id"] for document in reply.json()["documents"]]
            # The server reads documents in the order of their uploads.
            for id_ in ids:
                while (status := client.get(f"/documents/{id_}").raise_for_status().json()["status"]) != "ready":
                    if status == "failed":
                        raise BenchError(f"document {id_} failed")
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


def measure_chats(server: Server, load: "threading.Thread | None", seconds: float) -> ChatTimes:
    """The times of chats and `/health` requests in turns, while the thread `load` lives; without it, for `seconds`."""
    times, language, end = ChatTimes([], []), Language(), time.monotonic() + seconds
    health = pings(server.port)
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        while load.is_alive() if load is not None else time.monotonic() < end:
            times.first_event.append(first_event(client, language.question(len(times.health) % TOPICS)))
            times.health.append(next(health))
            time.sleep(PAUSE)
    return times


def run(documents: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = {**EMBEDDED, "DATA_DIR": str(Path(folder) / "data")}
        with Server(("backend.main",), "/ready", env, core=ANY_CORE) as server:
            print(f"loading {documents:,} small documents ...", flush=True)
            measure_chats(server, None, seconds=2)
            before, idle = server.memory_mb(), measure_chats(server, None, seconds=5)
            loader = Loader(server.url, documents)
            loader.start()
            busy = measure_chats(server, loader, seconds=0)
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
