"""One HTTP connection: uvicorn's, which refuses what is too large, too slow or ambiguous before it costs anything.

uvicorn sets no limit to a request's head, and its parser copies a header anew for each piece that arrives: one header
of 40 MB would stop the server for seconds. Here, the parser gets 64 KB at a time, and nothing more once a limit is
passed.
"""

import asyncio
import re
import time
from typing import Any, NoReturn

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backend.routers.edge import refusals
from backend.routers.edge.connections import Admission, Connections
from backend.routers.edge.event_stream import HANG_UP, RESPONDING
from backend.routers.edge.refusals import MAX_HEAD_BYTES, MAX_HEADER_LINES, MAX_URL_BYTES, Refusal

_PIECE_BYTES = 65_536
"""Bytes that the parser is given at once."""
_LINGER_SECONDS = 5.0
"""Seconds for which a refused client may go on sending. Its bytes are dropped; without that, a reset of the connection
would take away the answer before the client has read it."""
_SHORT_LINGER_SECONDS = 0.3
"""The same if there are too many connections."""
_PIPELINED_REQUESTS = 32
"""Requests that may wait on one connection for the answers to earlier ones. Later ones are dropped unread."""
_PROBES = (b"/health", b"/ready")
"""Paths that are answered on connections beyond the limit."""
_METHOD = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64} ")


class _Refused(Exception):
    """The parser shall stop; the connection has the reason."""


class HttpConnection(HttpToolsProtocol):
    """A connection with limits for the size and the time of requests.

    While it waits for a head, it is in `heads` of the server's connections; for a body, in `bodies`.
    """

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self.url = b""
        self.head_since = self.body_since = self.body_seen = 0.0
        self.body_bytes = self.descriptor = 0
        self.is_idle = False
        self._admission = Admission.REFUSED
        self._open: list[RequestResponseCycle] = []
        self._refusal: Refusal | None = None
        self._is_deaf = False
        self._is_in_head = True
        self._has_begun = False
        self._has_progress = False
        self._bytes_without_progress = self._head_bytes = self._header_lines = self._hosts = 0
        self._coding: bytes | None = None
        self._is_lingering = False

    # The connection begins and ends.

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # `close()` would wait until the client has read everything; a response that gives its client up aborts.
        self.app_state = {**self.app_state, HANG_UP: transport.abort, RESPONDING: self._begin_response}
        socket = transport.get_extra_info("socket")
        self.descriptor = socket.fileno() if socket is not None else 0
        host = self.client[0] if self.client else ""
        self._admission = self._connections.admit(host, self.descriptor)
        if self._admission is Admission.REFUSED:
            self._answer(refusals.NO_PLACE, _SHORT_LINGER_SECONDS)
        else:
            self._wait_for_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self.client[0] if self.client else "", self._admission)
        self._connections.heads.pop(self, None)
        self._connections.bodies.pop(self, None)
        self._is_deaf = True
        # uvicorn marks only the last of several requests as disconnected; the others would stream on unread.
        for cycle in self._open:
            _disconnect(cycle)
        super().connection_lost(exc)

    # Bytes arrive.

    @override
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.is_idle:
            self._wait_for_head()
        if len(data) <= _PIECE_BYTES:
            self._read(data)
        else:
            for start in range(0, len(data), _PIECE_BYTES):
                self._read(data[start : start + _PIECE_BYTES])
        if not self._is_in_head and not self._is_deaf and self not in self._connections.bodies:
            self._connections.bodies[self] = None

    def _read(self, piece: bytes) -> None:
        if self._is_deaf:
            return
        self._has_progress = False
        assert self.parser is not None
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The request has been accepted as one of HTTP/1.1. What follows on the connection is of another protocol.
            self._stop_after_answers()
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or _refusal_of(error, piece))
        else:
            if self._has_progress:
                self._bytes_without_progress, self.body_seen = 0, time.monotonic()
            else:
                self._bytes_without_progress += len(piece)
            if self._head_bytes + self._bytes_without_progress > MAX_HEAD_BYTES:
                self._refuse(refusals.HEAD_TOO_LARGE)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = self._has_progress = True
        self._head_bytes = self._header_lines = self._hosts = 0
        self._coding = None
        if len(self.pipeline) >= _PIPELINED_REQUESTS:
            self._stop(refusals.NOT_HTTP)

    @override
    def on_url(self, url: bytes) -> None:
        self._has_progress = True
        if len(self.url) + len(url) > MAX_URL_BYTES:
            self._stop(refusals.URL_TOO_LONG)
        self.url += url
        self._head_bytes = len(self.url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._has_progress = True
        self._header_lines += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES or self._header_lines > MAX_HEADER_LINES:
            self._stop(refusals.HEAD_TOO_LARGE)
        if not self._is_in_head:
            return  # The body's trailers. Nobody reads them.
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._coding = value.lower()
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @override
    def on_headers_complete(self) -> None:
        self._check_head()
        self._is_in_head = False
        self._connections.heads.pop(self, None)
        self.body_since = self.body_seen = time.monotonic()
        self.body_bytes = 0
        is_guest = self._admission is Admission.GUEST
        if is_guest and self.url.partition(b"?")[0] not in _PROBES:
            self._connections.count(refusals.NO_PLACE.code)
            self.app = refusals.no_place
        super().on_headers_complete()
        if is_guest:
            self.cycle.keep_alive = False
        # With pipelining there are several requests without a complete response.
        self._open = [cycle for cycle in (*self._open, self.cycle) if not cycle.response_complete]

    @override
    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        self.body_bytes += len(body)
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._has_progress = self._is_in_head = True
        self._has_begun = False
        self._connections.bodies.pop(self, None)
        super().on_message_complete()

    def _check_head(self) -> None:
        assert self.parser is not None
        version, is_connect = self.parser.get_http_version(), self.parser.get_method() == b"CONNECT"
        if self._hosts > 1 or (not self._hosts and version != "1.0"):
            self._stop(refusals.BAD_HOST)
        if self._coding is not None and version == "1.0":
            self._stop(refusals.NOT_HTTP)
        if self._coding is not None and self._coding != b"chunked":
            self._stop(refusals.BAD_CODING)
        if is_connect:
            self._stop(refusals.BAD_METHOD)
        try:
            has_path = bool(httptools.parse_url(self.url).path)
        except httptools.HttpParserInvalidURLError:
            has_path = False
        if not has_path:
            self._stop(refusals.BAD_URL)

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Stop the parser within one of its callbacks."""
        self._refusal = refusal
        raise _Refused

    # Answers.

    def _begin_response(self) -> None:
        """Let the connection end with this response if the request's body has not arrived completely."""
        cycle = self._open[0] if self._open else self.cycle
        if cycle.more_body and not cycle.response_started:
            cycle.keep_alive = False
            cycle.transport = _LingeringTransport(self)  # pyright: ignore[reportAttributeAccessIssue]

    @override
    def on_response_complete(self) -> None:
        self._open = [cycle for cycle in self._open if not cycle.response_complete]
        if self._is_lingering:
            return
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._wait_for_head(is_idle=not self._has_begun)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that won't be read further. Earlier requests of the connection get their answers first."""
        self._is_deaf = True
        unanswered = [cycle for cycle in self._open if not cycle.response_complete]
        if unanswered and unanswered[-1].more_body and not unanswered[-1].response_started:
            broken = unanswered.pop()
            _disconnect(broken)
            if self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
        if unanswered:
            self._stop_after_answers()
        else:
            self._answer(refusal)

    def _stop_after_answers(self) -> None:
        self._is_deaf = True
        self._connections.heads.pop(self, None)
        self._connections.bodies.pop(self, None)
        unanswered = [cycle for cycle in self._open if not cycle.response_complete]
        if unanswered:
            unanswered[-1].keep_alive = False
        else:
            self.transport.close()

    def _answer(self, refusal: Refusal, linger_seconds: float = _LINGER_SECONDS) -> None:
        self._connections.count(refusal.code)
        if not self.transport.is_closing():
            self.transport.write(refusal.response())
            self.linger(linger_seconds)

    def linger(self, seconds: float = _LINGER_SECONDS) -> None:
        """Send what is written, drop what the client still sends, and close the connection soon."""
        self._is_deaf = self._is_lingering = True
        self._connections.heads.pop(self, None)
        self._connections.bodies.pop(self, None)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        timer = self.loop.call_later(seconds, self.transport.abort)
        self.transport.set_protocol(_Lingering(self, timer))

    # What `Connections` asks of a connection.

    def _wait_for_head(self, *, is_idle: bool = False) -> None:
        self._connections.heads.pop(self, None)
        self._connections.heads[self] = None
        self.head_since, self.is_idle = time.monotonic(), is_idle

    def is_read_paused(self) -> bool:
        """Whether the server itself has stopped reading, or responds already."""
        return self.flow.read_paused or self.cycle.response_started

    def time_out(self) -> None:
        """Answer 408, if a part of a request has arrived, and close the connection."""
        if self._is_in_head and not self._has_begun:
            self.transport.close()
        else:
            self._refuse(refusals.HEAD_TOO_SLOW if self._is_in_head else refusals.BODY_TOO_SLOW)
        self._connections.heads.pop(self, None)
        self._connections.bodies.pop(self, None)

    def give_way(self) -> None:
        """Close the connection at once; another one gets its place."""
        self._connections.heads.pop(self, None)
        self._connections.bodies.pop(self, None)
        self.transport.abort()


class _LingeringTransport:
    """The transport of a response that comes before the request's end: closing lets the client read the response."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """Close the connection when the client has read the response."""
        if not self.is_closing():
            self._connection.linger()


class _Lingering(asyncio.Protocol):
    """Drops what a client sends after it has got its answer."""

    def __init__(self, connection: HttpConnection, timer: asyncio.TimerHandle) -> None:
        self._connection = connection
        self._timer = timer

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._connection.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Let the application see that the client is gone."""
    cycle.disconnected = True
    cycle.message_event.set()


def _refusal_of(error: httptools.HttpParserError, piece: bytes) -> Refusal:
    """Why the parser gave up. It tells only in words."""
    reason = str(error)
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD.match(piece):
        return refusals.BAD_METHOD
    if reason in ("Invalid HTTP version", "Pause on PRI/Upgrade"):
        return refusals.BAD_VERSION
    return refusals.NOT_HTTP
