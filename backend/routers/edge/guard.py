"""The middleware that sees a request first. It checks whether its client address, Host and Origin may call the server.

Plain ASGI. Every web page that the user opens can reach a server on localhost, also by DNS names that are rebound to
loopback. FastAPI's own checks come too late for those.
"""

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.config.groups.server import ServerSettings
from backend.errors import Forbidden, Misdirected, RequestError
from backend.routers.edge.event_stream import BODY_SEND, RESPONDING
from backend.routers.edge.problems import ADVICE, ERROR_CODE, HIDES_ADVICE, problem_of, too_large
from backend.services.telemetry.records import PROBES, RequestRecord
from backend.services.telemetry.telemetry import SILENT, Telemetry

log = structlog.get_logger(__name__)

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REFUSALS = frozenset({401, 403, 421})
_FORM = b"application/x-www-form-urlencoded"


class Guard:
    """Refuses foreign callers, gives the request an id, corrects curl's content type, and logs the result."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        file_paths: Sequence[re.Pattern[str]] = (),
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._app = app
        self._file_paths = file_paths
        self._telemetry = telemetry
        self._local_only = settings.api_keys is None
        self._loopback = settings.is_loopback
        self._origins = frozenset(settings.cors_origins)
        self._hosts = frozenset(settings.trusted_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        clients_id = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = clients_id if _REQUEST_ID.fullmatch(clients_id) else uuid_utils.uuid7().hex
        scope["streamforge.request_id"] = request_id
        # The middleware after this one changes only the head of a response, so a stream's body may skip it.
        scope[BODY_SEND] = send
        scope[HIDES_ADVICE] = not self._local_only
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with self._telemetry.request(scope["method"], scope["path"], headers) as record:
            try:
                await self._pass_on(scope, receive, send, headers, record)
            finally:
                record.route = _route(scope)
                _log_request(scope, record)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], record: RequestRecord
    ) -> None:
        request_id, replaced = scope["streamforge.request_id"], False
        responding: Callable[[], None] | None = scope.get("state", {}).get(RESPONDING)

        async def send_with_id(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                if responding is not None:
                    responding()
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                self._telemetry.answer(record, message["status"], message["headers"])
                if record.status == 413 and (b"content-type", b"text/plain; charset=utf-8") in message["headers"]:
                    # The check of the body's size responds before our error handlers can.
                    replaced = True
                    refusal = problem_of(too_large(scope), request_id)
                    refusal.headers["X-Request-ID"] = request_id
                    await refusal(scope, receive, send)
            if not replaced:
                await send(message)

        try:
            self._check(scope, headers)
        except RequestError as error:
            await problem_of(error, request_id)(scope, receive, send_with_id)
        else:
            self._accept_curl_json(scope, headers)
            await self._app(scope, receive, send_with_id)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self._local_only and not is_loopback((scope.get("client") or ("127.0.0.1", 0))[0]):
            raise Forbidden(
                "Only programs on this machine may call while no keys are set.",
                code="foreign_peer",
                advice="Set API_KEYS to let others in.",
            )
        host = headers.get(b"host", b"").decode("latin-1")
        name = _hostname(host)
        if (self._loopback or self._hosts) and not (self._is_trusted(name) or is_loopback(name)):
            shown = _shown(name) or "the name"
            raise Misdirected(
                f"This server is not {shown}, which the Host header names.",
                advice=f"If it is, set TRUSTED_HOSTS={shown}. Without that it is localhost and 127.0.0.1 only.",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and scope["method"] not in _SAFE_METHODS and not self._is_known(origin, scope["scheme"], host):
            raise Forbidden(
                f"Pages of {_shown(origin)} may not call.",
                code="foreign_origin",
                advice=f"If it is yours, add it to CORS_ORIGINS: CORS_ORIGINS={_shown(origin)}.",
            )

    def _is_trusted(self, name: str) -> bool:
        """Whether TRUSTED_HOSTS has the name."""
        return name in self._hosts or any(name.endswith(each[1:]) for each in self._hosts if each.startswith("*."))

    def _is_known(self, origin: str, scheme: str, host: str) -> bool:
        """Whether pages of the origin may call: it is in CORS_ORIGINS, or it is the server's own. A proxy that ends TLS
        makes `scheme` http, so of a trusted name both schemes are the server's own."""
        if origin in self._origins or origin == f"{scheme}://{host}":
            return True
        return self._is_trusted(_hostname(host)) and origin in (f"https://{host}", f"http://{host}")

    def _accept_curl_json(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Label the body as JSON, which `curl -d` labels as a form. A browser's form stays a form and is refused, so
        that foreign pages can't call.
        """
        if scope["method"] not in _WITH_BODY or b"origin" in headers or b"sec-fetch-site" in headers:
            return
        is_form = headers.get(b"content-type", _FORM).startswith(_FORM)
        if is_form and not any(paths.fullmatch(scope["path"]) for paths in self._file_paths):
            others = [(k, v) for k, v in scope["headers"] if k != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]


def _hostname(host: str) -> str:
    """The name in a Host header, without the port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    # Longer text is no address. It also stays out of the cache.
    return len(host) <= 64 and _names_loopback(host)


@lru_cache(maxsize=1024)
def _names_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _shown(text: str) -> str:
    """A caller's text for messages and the log: printable, and at most 100 characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:100])


def _log_request(scope: Scope, record: RequestRecord) -> None:
    """Log one line for a request: probes for DEBUG only, refusals of callers and failures as warnings."""
    status, route = record.status, record.route
    is_refusal = status in _REFUSALS
    fields: dict[str, object] = {"method": record.method, "path": route, "status": status}
    fields["ms"] = round((time.perf_counter_ns() - record.began) / 1e6, 1)
    if (code := scope.get(ERROR_CODE)) is not None:
        fields["code"] = code
    if (owner := scope.get("streamforge.owner")) is not None:
        fields["owner"] = owner
    if is_refusal:
        # No route was looked for, and whoever reads this wants to know who called what.
        fields |= {"path": _shown(scope["path"]), "address": (scope.get("client") or ("-", 0))[0]}
        fields |= {"advice": scope[ADVICE]} if ADVICE in scope else {}
    is_failure = is_refusal or status >= 500 or not status
    is_probe = route in PROBES and not is_failure
    log.log(logging.WARNING if is_failure else logging.DEBUG if is_probe else logging.INFO, "request", **fields)


def _route(scope: Scope) -> str:
    """The pattern of the route, for the log. The path itself may contain a user's text."""
    return getattr(scope.get("route"), "path", "-")
