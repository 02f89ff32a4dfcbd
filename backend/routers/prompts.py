"""Prompts: templates with versions and labels."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from backend.chains.parameters import Writing
from backend.chains.templates import PromptContent, Value
from backend.routers.problems import responses
from backend.routers.state import Owner, ServicesDep
from backend.routers.times import Time, iso
from backend.routers.view import View
from backend.services.prompts import PromptValues, ReadVersion
from backend.storage.prompts import PromptRow, VersionRow

router = APIRouter(prefix="/prompts", tags=["prompts"])

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _slug(name: str) -> str:
    if not _SLUG.fullmatch(name):
        raise ValueError("may hold letters, digits, . _ - (64 at most), and begins with a letter or digit")
    return name


Slug = Annotated[str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": f"^{_SLUG.pattern}$"})]
_CONTENT: dict[str, Any] = {
    "system": "You answer for {{company}}. Be {{tone}}.",
    "variables": {
        "company": {"type": "string"},
        "tone": {"type": "enum", "values": ["brief", "thorough"], "default": "brief"},
    },
    "examples": [{"user": "Are you open on Sundays?", "assistant": "No. Monday to Friday, 9 to 17."}],
}


class NewVersion(PromptContent):
    """A version of a prompt, with labels that are to point to it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{**_CONTENT, "note": "Be brief."}]})

    note: str | None = Field(None, max_length=500, description="What is new in it.")
    labels: list[Slug] = Field([], max_length=20, description="Such as `production`; they leave the version before.")

    def content(self) -> PromptContent:
        """The version itself."""
        return PromptContent.model_validate(self.model_dump(exclude={"note", "labels", "name"}))


class NewPrompt(NewVersion):
    """A prompt's name and its first version."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "support", **_CONTENT, "labels": ["production"]}]},
    )

    name: Slug


class LabelChange(BaseModel):
    """Where a label is to point."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: int = Field(ge=1, le=1_000_000)


class RenderRequest(PromptValues):
    """Which version, and the values; `message` stands where the user's would."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"variables": {"company": "Acme"}, "message": "When are you open?"}]},
    )

    message: str = Field("", max_length=20_000)


class Prompt(View):
    """A prompt."""

    name: str
    versions: int = Field(description="The newest one's number.")
    labels: dict[str, int] = Field(description="Which version each label points to.", examples=[{"production": 2}])
    created_at: Time
    updated_at: Time


class PromptList(View):
    """Prompts, by name."""

    items: list[Prompt]


class PromptVersionInfo(View):
    """A version without its content."""

    version: int
    note: str | None = None
    created_at: Time


class PromptDetails(Prompt):
    """A prompt and its versions, the newest first."""

    items: list[PromptVersionInfo]


class PromptVersion(PromptVersionInfo):
    """A version; it never changes."""

    name: str
    content: PromptContent


class PromptDiff(View):
    """What changed, a unified diff by field; a field that is the same is left out."""

    fields: dict[str, str] = Field(
        examples=[{"system": "--- version 1\n+++ version 2\n@@ -1 +1 @@\n-Be brief.\n+Be kind."}]
    )


class RenderedTurn(View):
    """An example with its values in place."""

    user: str
    assistant: str


class RenderedPrompt(View):
    """What would be sent: `examples` come before the conversation, `message` is the user's as the model sees it."""

    version: int
    system: str | None
    examples: list[RenderedTurn]
    message: str
    variables: dict[str, Value]
    model: str | None
    parameters: Writing | None


@router.get("", responses=responses(401), summary="Your prompts")
async def prompts(services: ServicesDep, owner: Owner) -> PromptList:
    """By name."""
    return PromptList(items=[_prompt(row) for row in await services.prompts.all(owner)])


@router.post("", status_code=201, responses=responses(400, 401, 403, 409, 413, 422), summary="Make a prompt")
async def create(body: NewPrompt, services: ServicesDep, owner: Owner) -> Prompt:
    """With its first version."""
    return _prompt(await services.prompts.create(owner, body.name, body.content(), body.note, body.labels))


@router.get("/{name}", responses=responses(401, 404), summary="One prompt")
async def prompt(name: str, services: ServicesDep, owner: Owner) -> PromptDetails:
    """Its labels, and its versions without their content."""
    row, versions = await services.prompts.get(owner, name)
    return PromptDetails(**_prompt(row).model_dump(), items=[PromptVersionInfo(**_info(each)) for each in versions])


@router.delete("/{name}", status_code=204, responses=responses(401, 403, 404), summary="Delete a prompt")
async def delete(name: str, services: ServicesDep, owner: Owner) -> Response:
    """With all its versions. Answers keep what they say of it."""
    await services.prompts.delete(owner, name)
    return Response(status_code=204)


@router.post(
    "/{name}/versions",
    status_code=201,
    responses=responses(400, 401, 403, 404, 409, 413, 422),
    summary="Add a version",
)
async def add(name: str, body: NewVersion, services: ServicesDep, owner: Owner) -> PromptVersion:
    """Its number is the next one. Nothing else changes but the labels that it names."""
    return _version(name, await services.prompts.add(owner, name, body.content(), body.note, body.labels))


@router.get("/{name}/versions/{n}", responses=responses(401, 404, 422), summary="One version")
async def version(
    name: str, n: Annotated[int, Path(ge=1, le=1_000_000)], services: ServicesDep, owner: Owner
) -> PromptVersion:
    """With its content."""
    return _version(name, await services.prompts.version(owner, name, n))


@router.put("/{name}/labels/{label}", responses=responses(400, 401, 403, 404, 409, 422), summary="Set a label")
async def label(name: str, label: Slug, body: LabelChange, services: ServicesDep, owner: Owner) -> Prompt:
    """It points to that version from now on."""
    return _prompt(await services.prompts.label(owner, name, label, body.version))


@router.delete(
    "/{name}/labels/{label}", status_code=204, responses=responses(401, 403, 404), summary="Take a label away"
)
async def unlabel(name: str, label: str, services: ServicesDep, owner: Owner) -> Response:
    """The version stays."""
    await services.prompts.unlabel(owner, name, label)
    return Response(status_code=204)


Number = Annotated[int, Query(ge=1, le=1_000_000, description="A version's number.")]


@router.get("/{name}/diff", responses=responses(401, 404, 422), summary="What changed")
async def diff(
    name: str,
    services: ServicesDep,
    owner: Owner,
    before: Annotated[Number, Query(alias="from")],
    after: Annotated[Number, Query(alias="to")],
) -> PromptDiff:
    """Between two versions, field by field."""
    return PromptDiff(fields=await services.prompts.diff(owner, name, before, after))


@router.post("/{name}/render", responses=responses(400, 401, 403, 404, 413, 422), summary="Try a prompt")
async def render(name: str, body: RenderRequest, services: ServicesDep, owner: Owner) -> RenderedPrompt:
    """What would be sent, without sending it. What grounding adds to the system prompt isn't shown."""
    found = await services.prompts.prepare(owner, name, body)
    told = found.rendered.examples
    return RenderedPrompt(
        version=found.version,
        system=found.rendered.system,
        examples=[RenderedTurn(user=u.text, assistant=a.text) for u, a in zip(told[::2], told[1::2], strict=True)],
        message=found.rendered.wrap(body.message),
        variables=dict(found.rendered.values),
        model=found.rendered.content.model,
        parameters=found.rendered.content.parameters,
    )


def _prompt(row: PromptRow) -> Prompt:
    return Prompt(
        name=row.name,
        versions=row.versions,
        labels=row.labels,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def _info(row: VersionRow) -> dict[str, Any]:
    return {"version": row.n, "note": row.note, "created_at": iso(row.created_at)}


def _version(name: str, found: ReadVersion) -> PromptVersion:
    return PromptVersion(name=name, content=found.content, **_info(found.row))
