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
from backend.kit.numbers import bounded
from backend.services.models.pricing import Pricing
from backend.storage.usage.reservations import Reservation


@dataclass(frozen=True, slots=True)
class CostInput:
    """Everything that the highest cost of an answer depends on."""

    candidates: Sequence[ModelCandidate]
    rewriters: Sequence[ModelCandidate]
    """The models of which one may rewrite the question."""
    question: str
    texts: Sequence[str]
    """The texts of the prompt that are known: system prompt, message, examples."""
    images: int
    """The number of images in the message."""
    earlier_images: int
    """The number of images in earlier messages of the session."""
    searches: bool
    """Whether documents are searched."""
    has_history: bool
    """Whether there may be earlier messages."""


@dataclass(frozen=True, slots=True)
class Spending:
    """The limits of what an answer may cost."""

    input_limit: int
    """The longest prompt, in tokens."""
    images: int
    """The number of images of earlier messages that the prompt may hold."""
    reservation: Reservation


class Budgets:
    """The budgets of all owners."""

    def __init__(
        self, budgets: Mapping[str, Budget], pricing: Pricing, models: ModelSettings, library: LibrarySettings
    ) -> None:
        self._budgets = budgets
        self.is_off = not budgets
        """Whether no owner has a budget."""
        self._pricing = pricing
        self._history = models.llm_history_tokens
        self._passages = passages_at_most(library.top_k, library.passage_size)

    def of(self, owner: str) -> Budget | None:
        """The owner's budget, or else the budget of `*`; None if there is no limit."""
        return self._budgets.get(owner) or self._budgets.get(EVERYBODY)

    def spending(self, owner: str, cost_input: CostInput) -> Spending | None:
        """The limits of what the answer may cost; None without a budget. Raises PriceUnknown."""
        budget = self.of(owner)
        if budget is None:
            return None
        earlier_images = min(cost_input.earlier_images, images_that_fit(self._history, cost_input.images))
        limit = answer_at_most(
            cost_input.texts,
            cost_input.images + earlier_images,
            cost_input.candidates[0].parameters.response_schema,
            self._history if cost_input.has_history else 0,
            self._passages if cost_input.searches else 0,
        )
        # A candidate that times out must be paid, and so must the next one, which answers.
        calls = [(c.name, Tokens(limit, c.parameters.max_tokens)) for c in cost_input.candidates]
        amount = sum(self._cost(*call) for call in calls)
        if cost_input.has_history and cost_input.searches:
            # Which of them rewrites the question is not known yet.
            rewrite = Tokens(rewrite_at_most(cost_input.question), REWRITING.max_tokens)
            amount += max((self._cost(c.name, rewrite) for c in cost_input.rewriters if c.model.writes), default=0)
        return Spending(limit, earlier_images, Reservation(bounded(amount), budget))

    def reservation(self, owner: str, model: str, bound: Tokens) -> Reservation | None:
        """The reservation for a call of at most `bound` tokens; None without a budget. Raises PriceUnknown."""
        budget = self.of(owner)
        return Reservation(self._cost(model, bound), budget, writes=bound.output > 0) if budget is not None else None

    def _cost(self, name: str, bound: Tokens) -> int:
        cost = self._pricing.cost_at_most(name, bound)
        if cost is None:
            raise PriceUnknown(
                f"You have a budget, and what {name} costs is not known. Choose another model, or have its price set.",
                advice="MODELS_FILE sets prices (providers, models, price; 0 where it costs nothing).",
                model=name,
            )
        return cost
