"""Who answers a turn, by what words, from which documents: the request's say, else the session's, else the prompt's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.chains.answer.grounding import base_system
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.models.prompt import Message
from backend.config.groups.library import LibrarySettings
from backend.services.answers.request import AnswerRequest
from backend.services.conversations.images import Pictures
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.search.search import LibraryRetriever, LibrarySearch, Scope
from backend.services.models.choose import ModelChoice
from backend.services.models.open import Models
from backend.services.prompts.prompts import Prepared, PromptChoice, PromptService
from backend.services.usage.budgets import Budgets, CostInput, Spending
from backend.storage.conversations.sessions import Sessions


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What answers a turn: the models, the first one first, and what they may look things up in. `wrapped` is the
    message as the models see it; `prompt` is what is kept of the prompt, JSON text; `allowance` is what it may take
    where the owner has a budget."""

    turn: AnswerRequest
    candidates: tuple[ModelCandidate, ...]
    retriever: LibraryRetriever | None
    system: str | None
    examples: tuple[Message, ...]
    wrapped: str
    prompt: str | None
    allowance: Spending | None


class Planner:
    """Decides how a turn is answered, and refuses what can't be."""

    def __init__(
        self,
        models: Models,
        prompts: PromptService,
        sessions: Sessions,
        documents: DocumentService,
        collections: CollectionService,
        knowledge: LibrarySearch,
        settings: LibrarySettings,
        budgets: Budgets,
        pictures: Pictures,
    ) -> None:
        self._budgets = budgets
        self._pictures = pictures
        self._models = models
        self._prompts = prompts
        self._sessions = sessions
        self._documents = documents
        self._collections = collections
        self._knowledge = knowledge
        self._settings = settings

    async def plan(self, owner: str, turn: AnswerRequest) -> AnswerPlan:
        """How the turn is answered. Raises RequestError (PriceUnknown among them), EmbeddingMismatch."""
        settings = await self._sessions.settings(owner, turn.session_id) if turn.session_id is not None else {}
        system, prompt = await self._words(owner, turn, settings)
        model = turn.model if turn.model is not None else settings.get("model")
        asked = turn.asked()
        if prompt is not None:
            content = prompt.rendered.content
            model = model if model is not None else content.model
            asked = {**(content.parameters.named() if content.parameters is not None else {}), **asked}
        if model is None:
            await self._models.catalog.look()
        candidates = tuple(self._models.chooser.choose(ModelChoice(model, turn.fallbacks, asked)))
        retriever = await self._retriever(owner, turn, settings)
        examples = prompt.rendered.examples if prompt is not None else ()
        wrapped = prompt.rendered.wrap(turn.message) if prompt is not None else turn.message
        planned = CostInput(
            candidates=candidates,
            question=turn.message,
            texts=(base_system(system), wrapped, *(example.text for example in examples)),
            pictures=turn.shows,
            before=await self._before(owner, turn),
            looks_up=retriever is not None,
            follows=turn.session_id is not None,
        )
        allowance = self._budgets.allowance(owner, planned)
        if allowance is not None:
            # What is held for the history counts on estimates: a tokenizer may take in more.
            candidates = tuple(replace(candidate, count=None) for candidate in candidates)
        return AnswerPlan(
            turn=turn,
            candidates=candidates,
            retriever=retriever,
            system=system,
            examples=examples,
            wrapped=wrapped,
            prompt=prompt.record() if prompt is not None else None,
            allowance=allowance,
        )

    async def _before(self, owner: str, turn: AnswerRequest) -> int:
        """How many pictures the messages before may have, where that matters before they are read."""
        if turn.session_id is None or self._budgets.of(owner) is None:
            return 0
        return await self._pictures.count(turn.session_id)

    async def _words(
        self, owner: str, turn: AnswerRequest, settings: Mapping[str, Any]
    ) -> tuple[str | None, Prepared | None]:
        """The system prompt, and the prompt. A request that names either uses neither of the session's."""
        system, choice = turn.system_prompt, turn.prompt
        if system is None and choice is None:
            system, chosen = settings.get("system_prompt"), settings.get("prompt")
            choice = PromptChoice.model_validate(chosen) if chosen is not None else None
        if choice is None:
            return system, None
        prompt = await self._prompts.prepare(owner, choice.name, choice)
        return (system if system is not None else prompt.rendered.system), prompt

    async def _retriever(self, owner: str, turn: AnswerRequest, settings: Mapping[str, Any]) -> LibraryRetriever | None:
        if turn.documents is False or not self._settings.enable_rag:
            return None
        only: Sequence[str] | None = None
        if turn.documents is not True:
            await self._documents.check_exist(owner, turn.documents)
            only = turn.documents
        collections = await self._searched(owner, turn, settings)
        await self._knowledge.check(owner, collections)
        scope = Scope(collections, tuple(only) if only is not None else None)
        return LibraryRetriever(self._knowledge, owner, self._settings.top_k, scope)

    async def _searched(self, owner: str, turn: AnswerRequest, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The collections that are searched: those of the request, else of the session, else all (None)."""
        if turn.collections is not None:
            await self._collections.check_exist(owner, turn.collections)
            return tuple(turn.collections)
        # Some may have been deleted since they were set: the others are meant all the same.
        chosen = settings.get("collections")
        return tuple(chosen) if chosen is not None else None
