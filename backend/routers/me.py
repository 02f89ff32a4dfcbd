"""GET /me: who the caller is, and what the caller may do."""

from fastapi import APIRouter
from pydantic import Field

from backend.routers.answers.budget_views import BudgetInfo
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.view import View

router = APIRouter(prefix="/me", tags=["me"], route_class=OwnRoute)
TAG = {"name": "me", "description": "Who you are, and what you may do."}


class Limits(View):
    """The largest sizes that the server takes."""

    message_chars: int = Field(description="Characters of a message (MAX_MESSAGE_CHARS).")
    upload_mb: int = Field(description="Megabytes of a file (MAX_UPLOAD_MB).")
    upload_files: int = Field(description="Files in one upload (MAX_UPLOAD_FILES).")
    live_runs: int = Field(description="Answers that the server writes at the same time, of all callers (MAX_RUNS).")


class Caller(View):
    """The caller of the API."""

    name: str = Field(description="Your name in API_KEYS; `local` if the server needs no keys.", examples=["alice"])
    keys: bool = Field(description="Whether the server needs keys.")
    admin: bool = Field(description="Whether you may see what others use (USAGE_ADMINS).")
    budget: BudgetInfo | None = Field(None, description="Your budget; null if you have none.")
    limits: Limits


@router.get("", responses=responses(401), summary="Who you are")
async def get_me(services: ServicesDep, owner: Owner) -> Caller:
    """Returns the name that your key belongs to, your budget, and the limits of the server. A page can call this to
    check a key.
    """
    settings, reports = services.settings, services.usage.reports
    budget = await reports.budget(owner)
    return Caller(
        name=owner,
        keys=settings.server.api_keys is not None,
        admin=reports.is_admin(owner),
        budget=BudgetInfo.of(budget) if budget is not None else None,
        limits=Limits(
            message_chars=settings.runs.max_message_chars,
            upload_mb=settings.library.max_upload_mb,
            upload_files=settings.library.max_upload_files,
            live_runs=settings.runs.max_runs,
        ),
    )
