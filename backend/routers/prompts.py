"""Prompts: templates with versions and labels."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from backend.chains.models.parameters import Writing
from backend.chains.templates import PromptContent, Value
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View
from backend.services.prompts.prompts import PromptRow, PromptValues, ReadVersion, RevisionRow

router = APIRouter(prefix="/prompts", tags=["prompts"], route_class=OwnRoute)
_NO_PROMPT = ProblemExample(404, "not_found", "No such prompt. GET /prompts lists yours.")
_EXISTS = ProblemExample(
    409,
    "prompt_exists",
    "You have a prompt of this name. Add a version (POST /prompts/support/versions), or choose another name.",
)
_TOO_MANY = ProblemExample(409, "too_many_prompts", "This prompt has 1000 versions, the most there may be.")
_TOO_MANY_LABELS = ProblemExample(409, "too_many_prompts", "This prompt has 100 labels, the most there may be.")
TAG = {"name": "prompts", "description": "Prompt templates with versions and labels."}
PromptName = Annotated[str, Path(description="A prompt's name, see GET /prompts.")]

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _slug(name: str) -> str:
    if not _SLUG.fullmatch(name):
        raise ValueError("may hold letters, digits, . _ - (64 at most), and begins with a letter or digit")
    return name


Slug = Annotated[str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": f"^{_SLUG.pattern}$"})]
RevisionNumber = Annotated[int, Path(ge=1, le=1_000_000, description="A version's number; the first is 1.")]
_LABEL = "A label of the prompt, such as `production`."
NewLabel = Annotated[Slug, Path(description=_LABEL)]
OldLabel = Annotated[str, Path(description=_LABEL)]
_CONTENT: dict[str, Any] = {
    "system": "You answer for {{company}}. Be {{tone}}.",
    "variables": {
        "company": {"type": "string"},
        "tone": {"type": "enum", "values": ["brief", "thorough"], "default": "brief"},
    },
    "examples": [{"user": "Are you open on Sundays?", "assistant": "No. Monday to Friday, 9 to 17."}],
}


class NewVersion(PromptContent):
    """A version of a prompt, and the labels that will point to it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{**_CONTENT, "note": "Be brief."}]})

    note: str | None = Field(None, max_length=500, description="Describes what is new in this version.")
    labels: list[Slug] = Field(
        [], max_length=20, description="Labels such as `production`. They move from their previous version to this one."
    )

    def content(self) -> PromptContent:
        """The content of the version."""
        return PromptContent.model_validate(self.model_dump(exclude={"note", "labels", "name"}))


class NewPrompt(NewVersion):
    """A prompt's name and its first version."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "support", **_CONTENT, "labels": ["production"]}]},
    )

    name: Slug


class LabelChange(BaseModel):
    """The version that the label will point to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: int = Field(ge=1, le=1_000_000)


class RenderRequest(PromptValues):
    """The version, the values of variables, and an example of the user's `message`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"variables": {"company": "Acme"}, "message": "When are you open?"}]},
    )

    message: str = Field("", max_length=20_000)


class Prompt(View):
    """A prompt."""

    name: str
    versions: int = Field(description="Number of the newest version.")
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
    """The changes as a unified diff for each field. Unchanged fields are left out."""

    fields: dict[str, str] = Field(
        examples=[{"system": "--- version 1\n+++ version 2\n@@ -1 +1 @@\n-Be brief.\n+Be kind."}]
    )


class RenderedTurn(View):
    """An example with the values inserted."""

    user: str
    assistant: str


class RenderedPrompt(View):
    """What would be sent: `examples` come before the conversation; `message` is the user's message as the model sees
    it.
    """

    version: int
    system: str | None
    examples: list[RenderedTurn]
    message: str
    variables: dict[str, Value]
    model: str | None
    parameters: Writing | None


@router.get("", responses=responses(401), summary="Your prompts")
async def list_prompts(services: ServicesDep, owner: Owner) -> PromptList:
    """Returns your prompts, sorted by name."""
    return PromptList(items=[_prompt(row) for row in await services.prompts.all(owner)])


@router.post("", status_code=201, responses=responses(400, 401, 403, _EXISTS, 413, 422), summary="Create a prompt")
async def create_prompt(body: NewPrompt, services: ServicesDep, owner: Owner) -> Prompt:
    """Creates a prompt with its first version."""
    return _prompt(await services.prompts.create(owner, body.name, body.content(), body.note, body.labels))


@router.get("/{name}", responses=responses(401, _NO_PROMPT), summary="One prompt")
async def get_prompt(name: PromptName, services: ServicesDep, owner: Owner) -> PromptDetails:
    """Returns the prompt's labels, and its versions without their content."""
    row, versions = await services.prompts.get(owner, name)
    return PromptDetails(
        **_prompt(row).model_dump(), items=[PromptVersionInfo(**_info(version)) for version in versions]
    )


@router.delete("/{name}", status_code=204, responses=responses(401, 403, _NO_PROMPT), summary="Delete a prompt")
async def delete_prompt(name: PromptName, services: ServicesDep, owner: Owner) -> Response:
    """Deletes the prompt with all its versions. Answers keep the name, version and variables that they used."""
    await services.prompts.delete(owner, name)
    return Response(status_code=204)


@router.post(
    "/{name}/versions",
    status_code=201,
    responses=responses(400, 401, 403, _NO_PROMPT, _TOO_MANY, 413, 422),
    summary="Add a version",
)
async def add_prompt_version(name: PromptName, body: NewVersion, services: ServicesDep, owner: Owner) -> PromptVersion:
    """Adds a version with the next number. The labels in the request move to it; nothing else changes."""
    return _version(name, await services.prompts.add(owner, name, body.content(), body.note, body.labels))


@router.get("/{name}/versions/{n}", responses=responses(401, _NO_PROMPT, 422), summary="One version of a prompt")
async def get_prompt_version(name: PromptName, n: RevisionNumber, services: ServicesDep, owner: Owner) -> PromptVersion:
    """Returns the version with its content."""
    return _version(name, await services.prompts.version(owner, name, n))


@router.put(
    "/{name}/labels/{label}",
    responses=responses(400, 401, 403, _NO_PROMPT, _TOO_MANY_LABELS, 422),
    summary="Set a label",
)
async def set_prompt_label(
    name: PromptName, label: NewLabel, body: LabelChange, services: ServicesDep, owner: Owner
) -> Prompt:
    """Makes the label point to that version."""
    return _prompt(await services.prompts.label(owner, name, label, body.version))


@router.delete(
    "/{name}/labels/{label}", status_code=204, responses=responses(401, 403, _NO_PROMPT), summary="Remove a label"
)
async def remove_prompt_label(name: PromptName, label: OldLabel, services: ServicesDep, owner: Owner) -> Response:
    """Removes the label. The version is kept."""
    await services.prompts.unlabel(owner, name, label)
    return Response(status_code=204)


Number = Annotated[int, Query(ge=1, le=1_000_000, description="A version's number.")]


@router.get("/{name}/diff", responses=responses(401, _NO_PROMPT, 422), summary="Compare two versions")
async def compare_prompt_versions(
    name: PromptName,
    services: ServicesDep,
    owner: Owner,
    before: Annotated[Number, Query(alias="from")],
    after: Annotated[Number, Query(alias="to")],
) -> PromptDiff:
    """Shows the changes between two versions, field by field."""
    return PromptDiff(fields=await services.prompts.diff(owner, name, before, after))


@router.post("/{name}/render", responses=responses(400, 401, 403, _NO_PROMPT, 413, 422), summary="Try a prompt")
async def render_prompt(name: PromptName, body: RenderRequest, services: ServicesDep, owner: Owner) -> RenderedPrompt:
    """Shows what would be sent to the model, without sending it. The instructions for answers from documents, which
    are added to the system prompt, aren't shown.
    """
    prompt = await services.prompts.prepare(owner, name, body)
    examples = prompt.rendered.examples
    return RenderedPrompt(
        version=prompt.version,
        system=prompt.rendered.system,
        examples=[
            RenderedTurn(user=u.text, assistant=a.text) for u, a in zip(examples[::2], examples[1::2], strict=True)
        ],
        message=prompt.rendered.wrap(body.message),
        variables=dict(prompt.rendered.values),
        model=prompt.rendered.content.model,
        parameters=prompt.rendered.content.parameters,
    )


def _prompt(row: PromptRow) -> Prompt:
    return Prompt(
        name=row.name,
        versions=row.versions,
        labels=row.labels,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def _info(row: RevisionRow) -> dict[str, Any]:
    return {"version": row.n, "note": row.note, "created_at": iso(row.created_at)}


def _version(name: str, version: ReadVersion) -> PromptVersion:
    return PromptVersion(name=name, content=version.content, **_info(version.row))
