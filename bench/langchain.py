"""`python -m bench langchain`: what LangChain costs on a token's way, in CPU of a process that does nothing else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .process import CLIENT_CORE, SERVER_CORE, BenchError, Server, free_port, pin, printed_by
from .tables import figure, print_table
from .ways import RATE, WAYS


@dataclass(frozen=True)
class Sizes:
    """Tokens of one stream flat out and of one at 200 tokens/s, and how many calls of one token."""

    flat: int = 10_000
    paced: int = 500
    calls: int = 100


QUICK = Sizes(flat=2_000, paced=200, calls=40)


class Sink(BaseHTTPRequestHandler):
    """Takes what LangSmith's client sends, and counts the requests that bring runs."""

    protocol_version = "HTTP/1.1"
    received = 0

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers["Content-Length"]))
        Sink.received += 1
        self._answer(202)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def sink() -> Iterator[str]:
    """The URL of a LangSmith that keeps nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def run(sizes: Sizes) -> None:
    pin(CLIENT_CORE)
    rows: list[list[str]] = []
    port = free_port()
    with Server(("bench.upstream", str(port)), "/v1/models", core=CLIENT_CORE, port=port) as upstream, sink() as traces:
        for way, (name, _, env) in WAYS.items():
            print(f"{name} ...", flush=True)
            module = ("bench.ways", way, f"{upstream.url}/v1", *map(str, (sizes.flat, sizes.paced, sizes.calls)))
            before = Sink.received
            figures = await printed_by(module, {"LANGSMITH_ENDPOINT": traces, **env}, core=SERVER_CORE)
            if bool(env) != (Sink.received > before):
                raise BenchError(f"{name}: LangSmith was sent {Sink.received - before} requests")
            rows.append([name, *(figure(figures[key]) for key in ("flat_us", "paced_us", "call_ms"))])
    head = ["one stream", "CPU µs per token, flat out", f"CPU µs per token, {RATE} tokens/s"]
    print_table([*head, "CPU ms per 1-token call"], rows)
