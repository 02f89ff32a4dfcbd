"""Every error response, as `application/problem+json`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.types import Receive, Scope, Send

from backend.errors import RequestError, StreamForgeError, TooLarge
from backend.routers.edge.services import request_id_of
from backend.routers.edge.view import View

ERROR_CODE = "streamforge.error_code"
"""The key of a scope under which the code of the error is that answered the request."""
ADVICE = "streamforge.advice"
"""The key of a scope under which the advice of that error is."""
HIDES_ADVICE = "streamforge.hides_advice"
"""The key of a scope that is true if callers don't run the server themselves."""

log = structlog.get_logger(__name__)


class Problem(View):
    """An error: what is wrong and what to do (RFC 9457). `code` never changes; docs/errors.md lists all codes."""

    type: str = Field(examples=["urn:streamforge:error:session_busy"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    code: str = Field(examples=["session_busy"])
    detail: str = Field(examples=["The session is still answering. Wait for that run, or cancel it."])
    retryable: bool = Field(examples=[False])
    request_id: str = Field(examples=["0193…"])
    errors: list[dict[str, str]] = Field([], description="The wrong fields, for 422: the first 20.")


_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Payment required",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    413: "Too large",
    414: "URL too long",
    421: "Misdirected request",
    422: "Invalid request",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    501: "Not implemented",
    502: "Bad gateway",
    503: "Unavailable",
    504: "Gateway timeout",
    505: "HTTP version not supported",
    507: "Storage full",
}


class ProblemResponse(JSONResponse):
    """The response for one error. The log gets its code. Only callers who run the server themselves see `advice`."""

    def __init__(
        self, members: dict[str, Any], status: int, headers: Mapping[str, str] | None, advice: str = ""
    ) -> None:
        super().__init__(members, status, headers=headers, media_type="application/problem+json")
        self._members = members
        self._advice = advice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        scope[ERROR_CODE] = self._members["code"]
        if self._advice:
            scope[ADVICE] = self._advice
            if not scope.get(HIDES_ADVICE):
                self.body = self.render({**self._members, "detail": f"{self._members['detail']} {self._advice}"})
                self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    advice: str = "",
    **extra: object,
) -> ProblemResponse:
    """The response for one error."""
    body: dict[str, Any] = {
        "type": f"urn:streamforge:error:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        "retryable": retryable,
        "request_id": request_id,
        **extra,
    }
    return ProblemResponse(body, status, headers, advice)


def problem_of(error: StreamForgeError, request_id: str | None) -> ProblemResponse:
    """The response for one of our own errors."""
    headers = error.headers if isinstance(error, RequestError) else None
    return problem(
        error.status,
        error.code,
        error.message,
        retryable=error.retryable,
        request_id=request_id,
        headers=headers,
        advice=error.advice,
        **error.extra,
    )


def too_large(scope: Scope) -> TooLarge:
    """The error for a body that is larger than the limit of the scope's endpoint."""
    limit = scope.get(MAX_BODY_SIZE_SCOPE_KEY)
    problem = f"A request to this path may have {limit / 1_000_000:g} MB" if limit else "The request is too large"
    return TooLarge(
        f"{problem}, pictures and files included. Upload long texts as documents, large files one by one.",
        advice="MAX_UPLOAD_MB sets the limit of files.",
    )


class ProblemExample(NamedTuple):
    """An error of an endpoint, for OpenAPI."""

    status: int
    code: str
    detail: str


def responses(*errors: int | ProblemExample) -> dict[int | str, dict[str, Any]]:
    """The error responses of an endpoint, for OpenAPI. A status alone gets the example in `_EXAMPLES`; what an endpoint
    doesn't find, and what it conflicts with, are examples of its own.
    """
    examples = {error if isinstance(error, int) else error.status: error for error in errors}
    new = examples.keys() - _TITLES.keys() | {e for e in examples.values() if isinstance(e, int)} - _EXAMPLES.keys()
    assert not new, f"{new}: add a title to _TITLES and an example to _EXAMPLES in backend/routers/edge/problems.py"
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": _TITLES[status],
            "content": {"application/problem+json": {"schema": schema, "example": example_of(error)}},
        }
        for status, error in examples.items()
    }


def example_of(error: int | ProblemExample) -> dict[str, Any]:
    """The problem document of an example."""
    status, code, detail = (error, *_EXAMPLES[error]) if isinstance(error, int) else error
    return {
        "type": f"urn:streamforge:error:{code}",
        "title": _TITLES[status],
        "status": status,
        "code": code,
        "detail": detail,
        "retryable": status in (429, 502, 503, 504),
        "request_id": "0193…",
    }


_EXAMPLES = {
    400: ("bad_json", "The body is not JSON. Send an object; GET /docs shows its fields."),
    401: ("unauthorized", "This server wants a key: send Authorization: Bearer <key>."),
    402: ("budget_exceeded", "The budget of alice is $5 a day: $4.98 is spent, and this may cost $0.05."),
    403: ("foreign_origin", "Pages of https://other.example may not call."),
    404: ("not_found", "There is no such document."),
    409: ("document_busy", "The document is being read. Wait until it is ready, or cancel it."),
    413: (
        "too_large",
        "A request to this path may have 10 MB, pictures and files included. Upload long texts as documents, "
        "large files one by one.",
    ),
    421: ("wrong_host", "This server is not rag.example, which the Host header names."),
    422: ("invalid_request", "message: must not be empty"),
    429: ("too_many_runs", "Too many answers are under way. Try again soon."),
    500: ("internal", "Something went wrong here. The server's log has the details, under the request id."),
    502: ("provider_error", "The provider failed (HTTP 500). Try again."),
    503: ("storage_busy", "The database is busy. Try again soon."),
    504: ("provider_timeout", "The provider did not answer in time. Try again."),
    507: ("storage_full", "The server's disk is full; nothing was stored. Try again later."),
}


def method_not_allowed(methods: Sequence[str], request_id: str | None) -> JSONResponse:
    """The response for a method that the path doesn't have, which has `methods`."""
    allow = ", ".join(methods)
    detail = f"This path has the methods {allow}. GET /docs shows what they do."
    return problem(405, "method_not_allowed", detail, request_id=request_id, headers={"Allow": allow})


def install(app: FastAPI, methods_of: Callable[[Scope], list[str]]) -> None:
    """Make the app respond to every error with a problem document. `methods_of` has the methods of a request's path."""

    async def streamforge_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StreamForgeError)
        return problem_of(error, request_id_of(request))

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors(), request)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, RequestError):
            # FastAPI makes an HTTPException of each error while it reads a body.
            return problem_of(error.__cause__, request_id_of(request))
        if error.status_code == 413:
            return problem_of(too_large(request.scope), request_id_of(request))
        code, detail = _HTTP.get(error.status_code, ("bad_request", str(error.detail)))
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := methods_of(request.scope)):
            return method_not_allowed(methods, request_id_of(request))
        return problem(error.status_code, code, detail, request_id=request_id_of(request), headers=headers)

    async def unexpected_error(request: Request, error: Exception) -> JSONResponse:
        log.error("request_crashed", path=request.url.path, exc_info=error)
        detail = "Something went wrong here. The server's log has the details, under the request id."
        return problem(500, "internal", detail, request_id=request_id_of(request))

    app.add_exception_handler(StreamForgeError, streamforge_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected_error)


_HTTP = {
    400: ("bad_request", "The request can't be read: send UTF-8 JSON, or multipart for uploads, of sane depth."),
    404: ("not_found", "There is nothing at this path. GET /docs shows what there is."),
    405: ("method_not_allowed", "This path knows other methods. GET /docs shows which."),
}


def _invalid(errors: Sequence[Any], request: Request) -> JSONResponse:
    request_id = request_id_of(request)
    if errors[0]["type"] == "json_invalid":
        example = ' like {"message": "hello"}' if request.url.path == "/chat" else ""
        detail = f"The body is not JSON. Send an object{example}; GET /docs shows its fields."
        return problem(400, "bad_json", detail, request_id=request_id)
    problems = [{"field": _field(e["loc"]), "problem": _field_problem(e)} for e in errors[:_MAX_ERRORS]]
    detail = "; ".join(f"{e['field']}: {e['problem']}" for e in problems[:5])
    return problem(422, "invalid_request", detail, request_id=request_id, errors=problems)


_UPLOAD = ("body", "file")
_MAX_ERRORS = 20
"""Errors of fields that a response lists."""


def _field(loc: Sequence[Any]) -> str:
    if tuple(loc[:2]) == _UPLOAD:
        return "file"
    names = [str(p).encode("utf-8", "replace").decode()[:80] for p in loc]
    return ".".join(names[1:] if len(names) > 1 and names[0] in ("body", "query", "path", "header") else names)


def _field_problem(error: Any) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "is not a field of this request. GET /docs shows which there are"
        case "missing" if error["loc"] == _UPLOAD:
            return 'is required. Send multipart/form-data with a field "file"'
        case "missing":
            return "is required"
        case "model_attributes_type" | "dict_type" if len(error["loc"]) == 1:
            return "must be a JSON object; send Content-Type: application/json"
        case "model_attributes_type" | "dict_type" | "model_type":
            return "must be a JSON object"
        case "string_unicode":
            return "must be valid Unicode text"
        case "value_error" if tuple(error["loc"][:2]) == _UPLOAD:
            return "is a text, not a file. With curl: -F file=@contract.pdf"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ").replace(" after validation", "")
            return message[0].lower() + message[1:]
