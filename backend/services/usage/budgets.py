"""The highest cost of an answer or of a call, computed before any model is called, and reserved in the budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.chains.answer.upper_bounds import answer_at_most, passages_at_most, rewrite_at_most
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.history.follow_up import REWRITING
from backend.chains.history.images import images_that_fit
from backend.chains.models.prompt import Tokens
from backend.config.budgets import EVERYBODY, Budget
from backend.config.groups.library import LibrarySettings
from backend.config.groups.models import ModelSettings
from backend.errors import PriceUnknown
from backend.services.models.pricing import Pricing
from backend.storage.usage.reservations import Reservation


@dataclass(frozen=True, slots=True)
class CostInput:
    """What is known about an answer before it begins."""

    candidates: Sequence[ModelCandidate]
    question: str
    texts: Sequence[str]
    """The texts of the prompt that are known: system prompt, message, examples."""
    pictures: int
    """The number of images in the message."""
    before: int
    """The number of images in earlier messages of the session."""
    looks_up: bool
    """Whether documents are searched."""
    follows: bool
    """Whether there may be earlier messages."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What an answer may spend."""

    input_limit: int
    """The longest prompt, in tokens."""
    pictures: int
    """The number of images of earlier messages that the prompt may hold."""
    reservation: Reservation


class Budgets:
    """The budgets of all owners."""

    def __init__(
        self, budgets: Mapping[str, Budget], pricing: Pricing, models: ModelSettings, library: LibrarySettings
    ) -> None:
        self._budgets = budgets
        self._pricing = pricing
        self._history = models.llm_history_tokens
        self._passages = passages_at_most(library.top_k, library.passage_size)

    def of(self, owner: str) -> Budget | None:
        """The owner's own budget, or else the one of `*`; None: no limit."""
        return self._budgets.get(owner) or self._budgets.get(EVERYBODY)

    def allowance(self, owner: str, planned: CostInput) -> Spending | None:
        """What the answer may spend; None without a budget. Raises PriceUnknown."""
        budget = self.of(owner)
        if budget is None:
            return None
        before = min(planned.before, images_that_fit(self._history, planned.pictures))
        limit = answer_at_most(
            planned.texts,
            planned.pictures + before,
            planned.candidates[0].parameters.response_schema,
            self._history if planned.follows else 0,
            self._passages if planned.looks_up else 0,
        )
        # A candidate that times out is paid for, and the next one that answers, too.
        calls = [(candidate.name, Tokens(limit, candidate.parameters.max_tokens)) for candidate in planned.candidates]
        amount = sum(self._cost(*call) for call in calls)
        if planned.follows and planned.looks_up:
            # The first candidate without a cooldown rewrites the question; which one it will be is not known yet.
            rewrite = Tokens(rewrite_at_most(planned.question), REWRITING.max_tokens)
            amount += max((self._cost(c.name, rewrite) for c in planned.candidates if c.model.writes), default=0)
        return Spending(limit, before, Reservation(amount, budget))

    def reservation(self, owner: str, model: str, most: Tokens) -> Reservation | None:
        """The highest cost of a call of `most` tokens; None without a budget. Raises PriceUnknown."""
        budget = self.of(owner)
        return Reservation(self._cost(model, most), budget, writes=most.output > 0) if budget is not None else None

    def _cost(self, name: str, most: Tokens) -> int:
        cost = self._pricing.cost_at_most(name, most)
        if cost is None:
            raise PriceUnknown(
                f"You have a budget, and what {name} costs is not known. Choose another model, or have its price set "
                "in MODELS_FILE (providers, models, price; 0 where it costs nothing).",
                model=name,
            )
        return cost
