"""Servers on free loopback ports that collect traces: OTLP over gRPC and HTTP, and other requests over HTTP."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class Span:
    """A span that was received; times in ns."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    begin: int
    end: int
    error: bool
    resource: dict[str, Any]


@dataclass
class Collector:
    """The spans that were received, in this order; `raw` has the bytes of the requests."""

    endpoint: str
    spans: list[Span] = field(default_factory=list[Span])
    raw: list[bytes] = field(default_factory=list[bytes])
    refuse: bool = False

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Store the spans of a request."""
        self.raw.append(request.SerializeToString())
        for resource in request.resource_spans:
            attributes = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans.extend(_span(span, attributes) for span in scope.spans)

    def named(self, name: str) -> list[Span]:
        """The spans with this name."""
        return [span for span in self.spans if span.name == name]

    def wait(self, name: str, count: int, timeout: float = 10) -> list[Span]:
        """The spans with this name, when there are exactly `count`. Blocks, so call it in a thread."""
        deadline = time.monotonic() + timeout
        while len(spans := self.named(name)) < count:
            assert time.monotonic() < deadline, f"{count} of {name}? There are {[span.name for span in self.spans]}"
            time.sleep(0.02)
        assert len(spans) == count, spans
        return spans

    def one(self, name: str) -> Span:
        """The only span with this name, when it has come. Blocks, so call it in a thread."""
        return self.wait(name, 1)[0]


class _Grpc(TraceServiceServicer):
    def __init__(self) -> None:
        self.collector: Collector | None = None

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        assert self.collector is not None
        if self.collector.refuse:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        self.collector.take(request)
        return ExportTraceServiceResponse()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """A collector of OTLP over gRPC."""
    servicer, server = _Grpc(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(servicer, server)
    servicer.collector = Collector(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield servicer.collector
    finally:
        server.stop(0).wait()


@contextmanager
def http_collector() -> Iterator[Collector]:
    """A collector of OTLP over HTTP."""
    with listening() as listener:
        collector = Collector(listener.address)

        def take(path: str, body: bytes) -> None:
            if path == "/v1/traces":
                collector.take(ExportTraceServiceRequest.FromString(body))

        listener.take = take
        yield collector


class Listener(ThreadingHTTPServer):
    """Stores path and body of every request, and calls `take` with them; responds with an empty JSON object."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[str, bytes]] = []
        self.take: Any = lambda path, body: None

    @property
    def address(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Listener)
        self.server.bodies.append((self.path, body))
        self.server.take(self.path, body)
        self._answer()

    do_PATCH = do_POST

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def listening() -> Iterator[Listener]:
    """A running Listener."""
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        error=span.status.code == 2,
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
