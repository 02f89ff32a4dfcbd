"""Which models answer a request, with which words and from which documents.

The request decides. What it leaves open is as the session says, then as the prompt says, then as the settings say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from backend.chains.answer.grounding import base_system
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.models.parameters import ModelOptions
from backend.chains.models.prompt import Message
from backend.config.groups.library import LibrarySettings
from backend.services.answers.request import AnswerRequest
from backend.services.conversations.images import ImageService
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.search.retriever import LibraryRetriever
from backend.services.library.search.search import LibrarySearch, Scope
from backend.services.models.choose import ModelChoice
from backend.services.models.open import Models
from backend.services.prompts.prompts import ChosenPrompt, PromptChoice, PromptService
from backend.services.usage.budgets import Budgets, CostInput, Spending
from backend.storage.conversations.sessions import Sessions

_OPTIONS = tuple(field.name for field in fields(ModelOptions))


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How a request is answered. The first of the `candidates` is tried first; `retriever` is None if no documents are
    searched. `wrapped` is the message as the models see it; `prompt` is what is stored about the prompt, JSON text.
    `spending` is what the answer may cost if the owner has a budget."""

    request: AnswerRequest
    candidates: tuple[ModelCandidate, ...]
    retriever: LibraryRetriever | None
    system: str | None
    examples: tuple[Message, ...]
    wrapped: str
    prompt: str | None
    spending: Spending | None


class Planner:
    """Decides how requests are answered, and refuses those that can't be answered."""

    def __init__(
        self,
        models: Models,
        prompts: PromptService,
        sessions: Sessions,
        documents: DocumentService,
        collections: CollectionService,
        search: LibrarySearch,
        settings: LibrarySettings,
        budgets: Budgets,
        images: ImageService,
    ) -> None:
        self._models = models
        self._prompts = prompts
        self._sessions = sessions
        self._documents = documents
        self._collections = collections
        self._search = search
        self._settings = settings
        self._budgets = budgets
        self._images = images

    async def plan(self, owner: str, request: AnswerRequest) -> AnswerPlan:
        """How the request is answered. Raises RequestError (PriceUnknown among them), EmbeddingMismatch."""
        session = await self._sessions.settings(owner, request.session_id) if request.session_id is not None else {}
        system, prompt = await self._words(owner, request, session)
        choice = _choice(request, session, prompt)
        if choice.model is None:
            await self._models.catalog.look()
        candidates = tuple(self._models.chooser.choose(choice))
        retriever: LibraryRetriever | None = None
        if request.documents is not False and self._settings.enable_rag:
            documents = None if request.documents is True else request.documents
            if documents is not None:
                await self._documents.check_exist(owner, documents)
            collections = request.collections
            if collections is not None:
                await self._collections.check_exist(owner, collections)
            elif (chosen := session.get("collections")) is not None:
                # Some may have been deleted since the session was given them: the others are searched all the same.
                collections = tuple(chosen)
            await self._search.check(owner, collections)
            retriever = LibraryRetriever(self._search, owner, self._settings.top_k, Scope(collections, documents))
        plan = AnswerPlan(
            request=request,
            candidates=candidates,
            retriever=retriever,
            system=system,
            examples=prompt.rendered.examples if prompt is not None else (),
            wrapped=prompt.rendered.wrap(request.message) if prompt is not None else request.message,
            prompt=prompt.record() if prompt is not None else None,
            spending=None,
        )
        if self._budgets.is_off or self._budgets.of(owner) is None:
            return plan
        return await self._within_budget(owner, plan)

    async def _words(
        self, owner: str, request: AnswerRequest, session: Mapping[str, Any]
    ) -> tuple[str | None, ChosenPrompt | None]:
        """The system prompt, and the prompt. A request that names one of them uses neither of the session's."""
        system, choice = request.system_prompt, request.prompt
        if system is None and choice is None:
            system, chosen = session.get("system_prompt"), session.get("prompt")
            choice = PromptChoice.model_validate(chosen) if chosen is not None else None
        if choice is None:
            return system, None
        prompt = await self._prompts.prepare(owner, choice.name, choice)
        return (system if system is not None else prompt.rendered.system), prompt

    async def _within_budget(self, owner: str, plan: AnswerPlan) -> AnswerPlan:
        """The plan with what the answer may cost. Raises PriceUnknown."""
        request = plan.request
        cost_input = CostInput(
            candidates=plan.candidates,
            question=request.message,
            texts=(base_system(plan.system), plan.wrapped, *(example.text for example in plan.examples)),
            pictures=request.image_count,
            before=await self._images.count(request.session_id) if request.session_id is not None else 0,
            looks_up=plan.retriever is not None,
            follows=request.session_id is not None,
        )
        # The reservation was computed from estimated tokens; counting exactly could let in a longer history than was
        # paid for.
        candidates = tuple(replace(candidate, count=None) for candidate in plan.candidates)
        return replace(plan, spending=self._budgets.allowance(owner, cost_input), candidates=candidates)


def _choice(request: AnswerRequest, session: Mapping[str, Any], prompt: ChosenPrompt | None) -> ModelChoice:
    """The model and its parameters, as far as the request, the session or the prompt names them."""
    model = request.model if request.model is not None else session.get("model")
    given = _given(request.options)
    if request.images:
        given["images"] = request.images
    if prompt is not None:
        content = prompt.rendered.content
        model = model if model is not None else content.model
        if content.parameters is not None:
            given = {**_given(content.parameters.options()), **given}
    return ModelChoice(model, request.fallbacks, given)


def _given(options: ModelOptions) -> dict[str, object]:
    """The parameters that were chosen, by name."""
    return {name: value for name in _OPTIONS if (value := getattr(options, name)) not in (None, ())}
