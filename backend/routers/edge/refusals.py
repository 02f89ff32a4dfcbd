"""The answers to requests that are refused before the application sees them, as ready bytes."""

from dataclasses import dataclass

import uuid_utils
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from backend.routers.edge.problems import problem

MAX_HEAD_BYTES = 65_536
"""Maximum bytes of a request's head: its first line and its headers."""
MAX_HEADER_LINES = 200
"""Maximum number of a request's headers."""
MAX_URL_BYTES = 16_384
"""Maximum bytes of a request's URL."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: its status, code and text."""

    status: int
    code: str
    detail: str
    retryable: bool = False

    def problem(self) -> JSONResponse:
        """The response, as a problem document with an id of its own."""
        request_id = uuid_utils.uuid7().hex
        headers = {"Connection": "close", "X-Request-ID": request_id}
        if self.retryable:
            headers["Retry-After"] = "1"
        return problem(
            self.status, self.code, self.detail, retryable=self.retryable, request_id=request_id, headers=headers
        )

    def response(self) -> bytes:
        """The bytes of the response, which announces that the connection closes."""
        response = self.problem()
        head = (STATUS_LINE[self.status], *(b"%s: %s\r\n" % header for header in response.raw_headers), b"\r\n")
        return b"".join((*head, bytes(response.body)))


NOT_HTTP = Refusal(400, code="bad_request", detail="This is not a valid HTTP/1.1 request.")
BAD_HOST = Refusal(400, code="bad_request", detail="The request must have exactly one Host header.")
BAD_URL = Refusal(
    400, code="bad_request", detail="The URL of the request can't be read. Send a path that begins with a slash."
)
BAD_CODING = Refusal(
    501, code="not_implemented", detail="The only transfer coding that this server reads is `chunked`, alone."
)
BAD_METHOD = Refusal(501, code="not_implemented", detail="This server doesn't know the method of the request.")
BAD_VERSION = Refusal(505, code="http_version", detail="This server speaks HTTP/1.1 and HTTP/1.0.")
URL_TOO_LONG = Refusal(414, code="url_too_long", detail=f"A URL may have {MAX_URL_BYTES} bytes.")
HEAD_TOO_LARGE = Refusal(
    431,
    code="headers_too_large",
    detail=f"The head of a request may have {MAX_HEAD_BYTES} bytes and {MAX_HEADER_LINES} headers.",
)
HEAD_TOO_SLOW = Refusal(
    408, code="request_timeout", detail="The request's head took too long to arrive.", retryable=True
)
BODY_TOO_SLOW = Refusal(
    408, code="request_timeout", detail="The request's body took too long to arrive.", retryable=True
)
NO_PLACE = Refusal(
    503, code="too_many_connections", detail="The server has too many connections. Try again soon.", retryable=True
)


async def no_place(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that a guest gets: it answers each request with 503."""
    await NO_PLACE.problem()(scope, receive, send)
