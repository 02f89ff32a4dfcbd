"""A query parameter that an endpoint doesn't have is refused, like an unknown field of a body."""

from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from backend.routers import modules_of
from backend.routers.edge.routes import OwnRoute
from tests.api.helpers import problem
from tests.api.routes import PRIVATE, PUBLIC, Endpoint
from tests.support.harness import ALL_ON, Running, settings

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCS = {Endpoint("GET", path) for path in ("/docs", "/openapi.json", "/docs/static")}


@pytest.mark.parametrize("endpoint", sorted((PRIVATE | PUBLIC) - DOCS), ids=" ".join)
async def test_an_unknown_parameter_is_422_and_the_error_lists_those_there_are(
    api: Running, endpoint: Endpoint
) -> None:
    response = await api.client.request(endpoint.method, endpoint.url, params={"colour": "blue"})
    body = problem(response, 422, "invalid_request")
    (error,) = body["errors"]
    assert error["field"] == "colour"
    operation = (await api.client.get("/openapi.json")).json()["paths"][endpoint.path][endpoint.method.lower()]
    names = sorted(p["name"] for p in operation.get("parameters", ()) if p["in"] == "query")
    assert body["detail"].startswith("colour: is not a query parameter of this endpoint. ")
    listed = ", ".join(names)
    assert (f"Its parameters: {listed}." if names else "It has no parameters.") in body["detail"]


async def test_known_parameters_are_taken_beside_none_unknown(api: Running) -> None:
    assert (await api.client.get("/sessions", params={"limit": 1, "q": "x"})).status_code == 200
    body = problem(
        await api.client.get("/sessions", params={"limits": 1, "Q": "x", "limit": 1}), 422, "invalid_request"
    )
    assert [error["field"] for error in body["errors"]] == ["limits", "Q"]


@pytest.mark.parametrize("query", ["a" * 5000, "%ff=1", "&".join(f"p{n}=1" for n in range(500)), "=1", "limit[]=1"])
async def test_odd_names_are_shown_in_bounds(api: Running, query: str) -> None:
    body = problem(await api.client.get(f"/sessions?{query}"), 422, "invalid_request")
    assert len(body["detail"]) < 1000
    assert 1 <= len(body["errors"]) <= 5


async def test_the_answers_format_is_known_although_fastapi_does_not_read_it(api: Running) -> None:
    body = {"message": "hi", "documents": False, "model": "simulated/words"}
    assert (await api.client.post("/chat", params={"format": "text"}, json=body)).status_code == 200


async def test_every_endpoint_of_ours_checks_its_parameters(tmp_path: Path) -> None:
    for module in modules_of(settings(tmp_path, **ALL_ON)):
        routes = [route for route in module.router.routes if isinstance(route, APIRoute)]
        assert routes
        assert all(isinstance(route, OwnRoute) for route in routes), (
            f"{module.__name__}: route_class=OwnRoute is missing"
        )


@pytest.mark.parametrize(("method", "path"), [("POST", "/documents/upload"), ("PUT", "/documents/doc_unknown/content")])
async def test_an_unknown_field_of_a_form_is_422(api: Running, method: str, path: str) -> None:
    files = {"file": ("a.txt", b"Some words.")}
    response = await api.client.request(method, path, files=files, data={"colour": "blue"})
    assert problem(response, 422, "invalid_request")["detail"].startswith("colour: is no field of this upload")
