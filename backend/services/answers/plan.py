"""Decides which models answer a request, with which prompt and from which documents.

Each value comes from the request; if the request doesn't set it, from the session, then from the prompt, then from the
settings.
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
    """How a request is answered."""

    request: AnswerRequest
    candidates: tuple[ModelCandidate, ...]
    """The models that may answer, in the order in which they are tried."""
    retriever: LibraryRetriever | None
    """None if no documents are searched."""
    system: str | None
    examples: tuple[Message, ...]
    wrapped: str
    """The message as the models see it: inside the template of the prompt."""
    prompt: str | None
    """The record of the prompt that is stored with the answer, as JSON text."""
    spending: Spending | None
    """The limits of what the answer may cost; None without a budget."""


class Planner:
    """Makes the plans of answers, and refuses requests that can't be answered."""

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
        """The plan of the answer. Raises RequestError (for example PriceUnknown), EmbeddingMismatch."""
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
                collections = tuple(await self._collections.resolve(owner, collections))
            elif (chosen := session.get("collections")) is not None:
                # Some may be deleted by now. The search leaves them out.
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
        """The system prompt, and the prompt. If the request names one of them, both of the session's are ignored."""
        system, choice = request.system_prompt, request.prompt
        if system is None and choice is None:
            system, chosen = session.get("system_prompt"), session.get("prompt")
            choice = PromptChoice.model_validate(chosen) if chosen is not None else None
        if choice is None:
            return system, None
        prompt = await self._prompts.prepare(owner, choice.name, choice)
        return (system if system is not None else prompt.rendered.system), prompt

    async def _within_budget(self, owner: str, plan: AnswerPlan) -> AnswerPlan:
        """The plan with the limits of what the answer may cost. Raises PriceUnknown."""
        request = plan.request
        cost_input = CostInput(
            candidates=plan.candidates,
            rewriters=tuple({c.name: c for c in map(self._models.chooser.for_tasks, plan.candidates)}.values()),
            question=request.message,
            texts=(base_system(plan.system), plan.wrapped, *(example.text for example in plan.examples)),
            images=request.image_count,
            earlier_images=await self._images.count(request.session_id) if request.session_id is not None else 0,
            searches=plan.retriever is not None,
            has_history=request.session_id is not None,
        )
        # The reservation was computed from estimated tokens; counting exactly could let in a longer history than was
        # paid for.
        candidates = tuple(replace(candidate, count=None) for candidate in plan.candidates)
        return replace(plan, spending=self._budgets.spending(owner, cost_input), candidates=candidates)


def _choice(request: AnswerRequest, session: Mapping[str, Any], prompt: ChosenPrompt | None) -> ModelChoice:
    """The model and the parameters that the request, the session or the prompt names."""
    model = request.model if request.model is not None else session.get("model")
    options = _chosen_options(request.options)
    if request.images:
        options["images"] = request.images
    if prompt is not None:
        content = prompt.rendered.content
        model = model if model is not None else content.model
        if content.parameters is not None:
            options = {**_chosen_options(content.parameters.options()), **options}
    return ModelChoice(model, request.fallbacks, options)


def _chosen_options(options: ModelOptions) -> dict[str, object]:
    """The parameters that are set, by name."""
    return {name: value for name in _OPTIONS if (value := getattr(options, name)) not in (None, ())}
