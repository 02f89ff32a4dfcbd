"""GET /metrics."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from backend.errors import NotFound
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import ServicesDep

if TYPE_CHECKING:
    from backend.services.telemetry.metrics import Metrics

router = APIRouter(tags=["system"], route_class=OwnRoute)
_OFF = ProblemExample(404, "not_found", "There are no metrics: set METRICS=1 and restart.")


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "All metrics in Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "streamforge_runs_live 2.0\n"}},
        },
        **responses(401, _OFF),
    },
    summary="Prometheus metrics",
)
async def get_metrics(request: Request, services: ServicesDep) -> Response:
    """Returns metrics of all owners together; `docs/observability.md` lists them. 404 unless METRICS is set."""
    sink: Metrics | None = request.app.state.metrics
    if sink is None:
        raise NotFound("There are no metrics: set METRICS=1 and restart.")
    from backend.services.telemetry.metrics import Levels

    size = await services.library.documents.size()
    text, media_type = sink.text(Levels(services.runs.hub.live_count, size.jobs, size.documents, size.chunks))
    return Response(text, headers={"Content-Type": media_type})
