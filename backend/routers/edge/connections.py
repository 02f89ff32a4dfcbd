"""The open connections: how many there may be, who has them, and which of them keep the server waiting too long.

A connection costs a descriptor and memory before anybody knows who calls. So the server counts connections in all and
per peer, gives each request a time to arrive, and keeps descriptors back for providers, database and files. If all
places are taken, a newcomer gets the place of the connection that has waited longest without a complete request.
"""

import ipaddress
import time
from collections import Counter
from enum import Enum
from typing import Protocol

import structlog

from backend.config.groups.server import ServerSettings
from backend.routers.edge.guard import is_loopback

try:
    import resource
except ImportError:  # Windows
    resource = None

log = structlog.get_logger("streamforge")

PEER_CONNECTIONS = 256
"""Connections of one peer on another machine, if MAX_CONNECTIONS_PER_PEER is not set."""
MIN_BODY_RATE = 500
"""Bytes a second that a body must bring on average, beyond its first BODY_TIMEOUT seconds."""
_GUESTS = 16
"""Connections beyond the limit, which may only ask whether the server is alive."""
_SILENT_SECONDS = 1.0
"""Seconds of silence within a body after which a newcomer may get the connection's place."""
_LOG_SECONDS = 10.0


class Admission(Enum):
    """What a new connection may do."""

    WELCOME = "welcome"
    GUEST = "guest"
    REFUSED = "refused"


class Waiting(Protocol):
    """A connection that the server waits for. `descriptor` is its socket's number."""

    descriptor: int
    head_since: float
    is_idle: bool
    body_since: float
    body_seen: float
    body_bytes: int

    def is_read_paused(self) -> bool:
        """Whether the server itself has stopped reading the connection."""
        ...

    def time_out(self) -> None:
        """Answer that the request came too slowly, and close the connection."""
        ...

    def give_way(self) -> None:
        """Close the connection at once."""
        ...


def descriptor_limit() -> int | None:
    """The number of descriptors that the process may open (`ulimit -n`); None if there is no limit."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def kept_back(limit: int) -> int:
    """The number of descriptors that connections leave to providers, database and files."""
    return min(max(limit // 8, 12), 256)


class Connections:
    """Admits connections, watches those that the server waits for, and counts refusals for the log."""

    def __init__(self, settings: ServerSettings, descriptors: int | None = None) -> None:
        self._settings = settings
        self._networks = tuple(ipaddress.ip_network(name, strict=False) for name in settings.trusted_proxies)
        reserve = kept_back(descriptors) if descriptors is not None else 0
        self._reserve = reserve
        # A new socket gets the lowest number that is free, so a high number tells that many descriptors are open.
        self._last_descriptor = descriptors - reserve if descriptors is not None else None
        self._last_guest_descriptor = descriptors - reserve // 2 if descriptors is not None else None
        self._peers: Counter[str] = Counter()
        self._open = 0
        self._guests = 0
        self._refusals: Counter[str] = Counter()
        self._logged = -_LOG_SECONDS
        self.heads: dict[Waiting, None] = {}
        """Connections without a complete request, the one that has waited longest first."""
        self.bodies: dict[Waiting, None] = {}
        """Connections whose request is still arriving."""

    def admit(self, host: str, descriptor: int) -> Admission:
        """What a new connection may do. `host` is the peer's address, `descriptor` the socket's number.

        The caller calls `leave` with the same arguments and the result when the connection is gone.
        """
        self._open += 1
        peer = self._peer(host)
        if peer is not None:
            self._peers[peer] += 1
            if self._peers[peer] > (self._settings.max_connections_per_peer or PEER_CONNECTIONS):
                return Admission.REFUSED
        is_full = self._open - self._guests > self._settings.max_connections
        if not is_full and (self._last_descriptor is None or descriptor < self._last_descriptor):
            return Admission.WELCOME
        if self._make_room():
            return Admission.WELCOME
        has_descriptor = self._last_guest_descriptor is None or descriptor < self._last_guest_descriptor
        if self._guests >= _GUESTS or not has_descriptor:
            return Admission.REFUSED
        self._guests += 1
        return Admission.GUEST

    def leave(self, host: str, admission: Admission) -> None:
        """Forget a connection that is gone."""
        self._open -= 1
        self._guests -= admission is Admission.GUEST
        if (peer := self._peer(host)) is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def make_room(self) -> None:
        """Close connections without a request, because no descriptor is left."""
        for connection in list(self.heads)[: max(1, self._reserve)]:
            connection.give_way()

    def sweep(self) -> None:
        """End the connections whose request took too long, and log what was refused since the last time."""
        now = time.monotonic()
        if self._last_descriptor is not None:
            # They came while others that gave way were not closed yet.
            for connection in [c for c in self.heads if c.descriptor >= self._last_descriptor]:
                connection.give_way()
        limit = self._settings.head_timeout
        for connection in [c for c in self.heads if not c.is_idle and now - c.head_since > limit]:
            connection.time_out()
        for connection in list(self.bodies):
            if connection.is_read_paused():
                connection.body_since += now - connection.body_seen
                connection.body_seen = now
            elif self._is_too_slow(connection, now):
                connection.time_out()
        if self._refusals and now - self._logged >= _LOG_SECONDS:
            log.warning("requests_refused", **self._refusals)
            self._refusals.clear()
            self._logged = now

    def count(self, code: str) -> None:
        """Count a refusal for the log."""
        self._refusals[code] += 1

    def _is_too_slow(self, connection: Waiting, now: float) -> bool:
        limit = self._settings.body_timeout
        allowed = limit + connection.body_bytes / MIN_BODY_RATE
        return now - connection.body_seen > limit or now - connection.body_since > allowed

    def _make_room(self) -> bool:
        """Whether a connection gave way. First come those without a request, then those silent within a body."""
        for connection in self.heads:
            connection.give_way()
            return True
        silent_since = time.monotonic() - _SILENT_SECONDS
        silent = [c for c in self.bodies if c.body_seen < silent_since and not c.is_read_paused()]
        if silent:
            min(silent, key=lambda c: c.body_seen).give_way()
        return bool(silent)

    def _peer(self, host: str) -> str | None:
        """Who is counted: the address, or the network of an IPv6 address. None: the peer is not counted."""
        if is_loopback(host) and self._settings.max_connections_per_peer is None:
            return None
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return None  # a Unix socket
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address in network for network in self._networks):
            return None
        return host if address.version == 4 else str(int(address) >> 64)
