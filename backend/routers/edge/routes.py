"""The class of our own endpoints: it refuses query parameters that the endpoint doesn't have."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from typing_extensions import override

from backend.errors import Invalid

_MAX_NAMES = 5
"""How many unknown names an error lists."""


class OwnRoute(APIRoute):
    """An endpoint of our own protocol. An unknown query parameter is 422, like an unknown field of a body.

    Endpoints of other people's protocols use FastAPI's own class, because those protocols ignore what they don't know.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, names = super().get_route_handler(), frozenset(self._query_names())

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                _check_query(request, names)
            return await handle(request)

        return checked

    def _query_names(self) -> Iterator[str]:
        for field in get_flat_params(self.dependant):
            if isinstance(field.field_info, Query):
                yield field.alias
        for parameter in (self.openapi_extra or {}).get("parameters", ()):
            if parameter["in"] == "query":
                yield parameter["name"]


def _check_query(request: Request, names: frozenset[str]) -> None:
    """Raises Invalid if the query has a parameter that is not in `names`."""
    unknown = [name for name in request.query_params if name not in names]
    if not unknown:
        return
    allowed = f"Its parameters: {', '.join(sorted(names))}" if names else "It has no parameters"
    problem = f"is not a query parameter of this endpoint. {allowed}"
    fields = [name.encode("utf-8", "replace").decode()[:80] for name in unknown[:_MAX_NAMES]]
    raise Invalid(f"{', '.join(fields)}: {problem}.", errors=[{"field": field, "problem": problem} for field in fields])
