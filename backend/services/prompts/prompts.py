"""Prompts of owners: templates with versions and labels, which are compared and rendered for answers."""

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.chains.templates import FilledPrompt, PromptContent, Value, render
from backend.kit.text import check_clean
from backend.services.prompts.diff import unified
from backend.storage.prompts import PromptRow as PromptRow
from backend.storage.prompts import Prompts
from backend.storage.prompts import RevisionRow as RevisionRow


class PromptValues(BaseModel):
    """A version of a prompt, and the values of its variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | None = Field(None, ge=1, le=1_000_000)
    label: str | None = Field(
        None,
        max_length=64,
        description="Without label and version, the version with the label `production` is used, else the newest.",
    )
    variables: dict[Annotated[str, Field(max_length=50)], Value | None] = Field({}, max_length=50)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        check_clean(self.model_dump())
        if self.version is not None and self.label is not None:
            raise ValueError("say version or label, not both")
        return self


class PromptChoice(PromptValues):
    """A prompt, its version and the values of its variables."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"name": "support", "variables": {"tone": "brief"}}]},
    )

    name: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class ReadVersion:
    """A version of a prompt with its parsed content."""

    row: RevisionRow
    content: PromptContent


@dataclass(frozen=True, slots=True)
class ChosenPrompt:
    """A version of a prompt with its values inserted, for an answer."""

    name: str
    version: int
    rendered: FilledPrompt

    def record(self) -> str:
        """The record of the prompt that is stored with the answer, as JSON text."""
        record = {"name": self.name, "version": self.version, "variables": dict(self.rendered.values)}
        return json.dumps(record, ensure_ascii=False)


class PromptService:
    """The prompts of all owners. A prompt of another owner raises NotFound."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    async def create(
        self, owner: str, name: str, content: PromptContent, note: str | None, labels: list[str]
    ) -> PromptRow:
        """Create a prompt with its first version. Returns the prompt. Raises Conflict."""
        await self._prompts.create(owner, name, _stored(content), note, labels)
        return await self._prompts.get(owner, name)

    async def add(
        self, owner: str, name: str, content: PromptContent, note: str | None, labels: list[str]
    ) -> ReadVersion:
        """Add a version to a prompt. Returns the version. Raises NotFound, Conflict."""
        n = await self._prompts.add(owner, name, _stored(content), note, labels)
        return await self.version(owner, name, n)

    async def all(self, owner: str) -> list[PromptRow]:
        """The owner's prompts, by name."""
        return await self._prompts.by_owner(owner)

    async def get(self, owner: str, name: str) -> tuple[PromptRow, list[RevisionRow]]:
        """One prompt and its versions, the newest first. Raises NotFound."""
        return await self._prompts.get(owner, name), await self._prompts.versions(owner, name)

    async def version(self, owner: str, name: str, n: int | None, label: str | None = None) -> ReadVersion:
        """One version; see `storage.prompts.Prompts.version`. Raises NotFound."""
        row = await self._prompts.version(owner, name, n, label)
        return ReadVersion(row, PromptContent.model_validate_json(row.content))

    async def label(self, owner: str, name: str, label: str, n: int) -> PromptRow:
        """Let the label point to version `n`. Returns the prompt. Raises NotFound, Conflict."""
        await self._prompts.label(owner, name, label, n)
        return await self._prompts.get(owner, name)

    async def unlabel(self, owner: str, name: str, label: str) -> None:
        """Remove the label from the prompt. Raises NotFound."""
        await self._prompts.unlabel(owner, name, label)

    async def delete(self, owner: str, name: str) -> None:
        """Delete a prompt with its versions and labels; answers keep their record of it. Raises NotFound."""
        await self._prompts.delete(owner, name)

    async def diff(self, owner: str, name: str, before: int, after: int) -> dict[str, str]:
        """What changed between two versions: a unified diff by field. Raises NotFound."""
        old, new = await self.version(owner, name, before), await self.version(owner, name, after)
        labels = f"version {before}", f"version {after}"
        return await asyncio.to_thread(_diff, old.content.model_dump(), new.content.model_dump(), labels)

    async def prepare(self, owner: str, name: str, values: PromptValues) -> ChosenPrompt:
        """The chosen version with its values inserted. Raises NotFound, Invalid."""
        version = await self.version(owner, name, values.version, values.label)
        return ChosenPrompt(name, version.row.n, render(version.content, values.variables))


def _stored(content: PromptContent) -> str:
    return content.model_dump_json(exclude_none=True)


def _diff(old: dict[str, Any], new: dict[str, Any], names: tuple[str, str]) -> dict[str, str]:
    changed: dict[str, str] = {}
    for field in new:
        before, after = _lines(old[field]), _lines(new[field])
        if before != after:
            changed[field] = unified(before, after, names)
    return changed


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    return text.split("\n")
