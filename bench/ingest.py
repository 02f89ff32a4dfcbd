"""`python -m bench ingest`: from the upload of a PDF to the first cited sentence, with no key."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from .document import FACTS, Fact, write_pdf
from .process import ANY_CORE, BenchError, Server
from .tables import print_table

# No provider, whatever the machine's environment says: answers quote the documents.
EMBEDDED = {
    "OPENAI_API_KEY": "",
    "LLM_MODEL": "extractive/quotes",
    "LOG_LEVEL": "WARNING",
    "HOST": "127.0.0.1",
}
PATIENCE = 600  # seconds


@dataclass
class Ingested:
    """The result for one document. Times in seconds."""

    pages: int
    chunks: int
    accepted: float  # until the upload was answered
    ready: float  # until it could be searched
    stages: dict[str, float] = field(default_factory=dict)


def upload(client: httpx.Client, path: Path) -> Ingested:
    start = time.monotonic()
    with path.open("rb") as file:
        reply = client.post("/documents/upload", files={"file": (path.name, file)})
    if reply.status_code not in (200, 201, 202):
        raise BenchError(f"the upload was answered {reply.status_code}: {reply.text[:500]}")
    accepted = time.monotonic() - start
    document = wait_until_ready(client, reply.json()["documents"][0]["id"], start + PATIENCE)
    ready = time.monotonic() - start
    return Ingested(document["pages"], document["chunks"], accepted, ready, document["progress"].get("seconds", {}))


def wait_until_ready(client: httpx.Client, document_id: str, deadline: float) -> dict[str, Any]:
    while time.monotonic() < deadline:
        document = client.get(f"/documents/{document_id}").raise_for_status().json()
        if document["status"] == "ready":
            return document
        if document["status"] == "failed":
            raise BenchError(f"the document failed: {document}")
        time.sleep(0.05)
    raise BenchError(f"document {document_id} was not ready in {PATIENCE} s")


def first_citation(client: httpx.Client, fact: Fact) -> float:
    """Seconds from the question to the first citation. Raises BenchError if it cites another sentence than the fact."""
    start = time.monotonic()
    with connect_sse(client, "POST", "/chat", json={"message": fact.question}) as source:
        source.response.raise_for_status()
        for sse in source.iter_sse():
            event = sse.json()
            if event["type"] == "citation":
                if fact.answer not in event["quote"]:
                    raise BenchError(f"{fact.question!r} cites {event['quote']!r}")
                return time.monotonic() - start
            if event["type"] == "run.failed":
                raise BenchError(f"{fact.question!r} failed: {event['error']}")
    raise BenchError(f"{fact.question!r} was answered without a citation")


def run(pages: int = 50) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.pdf"
        words = write_pdf(path, pages)
        env = {**EMBEDDED, "DATA_DIR": str(Path(folder) / "data")}
        print(f"ingesting {pages} pages, {words:,} words ...", flush=True)
        with (
            Server(("backend.main",), "/ready", env, core=ANY_CORE) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        ):
            before = server.cpu()
            document = upload(client, path)
            cpu = server.cpu() - before
            times = [first_citation(client, fact) for fact in FACTS]
            memory = server.memory_mb()
    report(document, cpu, times, memory)


def report(document: Ingested, cpu: float, times: list[float], memory: float) -> None:
    rows = [
        ["upload to searchable", f"{document.ready:.2f} s (answered after {document.accepted * 1e3:.0f} ms)"],
        ["pages", f"{document.pages}, {document.pages / document.ready:.1f} a second"],
        ["chunks", f"{document.chunks}, {document.chunks / document.ready:.1f} a second"],
        ["server CPU", f"{cpu:.2f} s"],
        *([f"stage {name}", f"{seconds:.2f} s"] for name, seconds in document.stages.items()),
        ["question to first citation", ", ".join(f"{seconds * 1e3:.0f} ms" for seconds in times)],
        ["upload to first cited sentence", f"{document.ready + times[0]:.2f} s"],
        ["memory afterwards", f"{memory:.0f} MB"],
    ]
    print_table(["ingestion, all cores, one process", ""], rows)
