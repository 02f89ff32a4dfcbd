"""What an answer may cost at most, before any model is asked: what its owner's budget must hold for it."""

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
from backend.services.models.catalog import Models
from backend.storage.usage.reservations import Reservation


@dataclass(frozen=True, slots=True)
class CostInput:
    """What an answer will be asked with. `texts`: the words of its prompt that are known; `pictures`: its own, and
    `before`: the session's; `looks_up`: in documents; `follows`: there may be messages before it."""

    candidates: Sequence[ModelCandidate]
    question: str
    texts: Sequence[str]
    pictures: int
    before: int
    looks_up: bool
    follows: bool


@dataclass(frozen=True, slots=True)
class Spending:
    """What an answer may take: `input_limit` tokens of prompt, with so many `pictures` of earlier messages, and the
    money."""

    input_limit: int
    pictures: int
    reservation: Reservation


class Budgets:
    """The budgets of all owners."""

    def __init__(
        self, budgets: Mapping[str, Budget], models: Models, writing: ModelSettings, reading: LibrarySettings
    ) -> None:
        self._budgets = budgets
        self._models = models
        self._history = writing.llm_history_tokens
        self._passages = passages_at_most(reading.top_k, reading.passage_size)

    def of(self, owner: str) -> Budget | None:
        """The owner's own budget, or the one of everybody else; None: no limit."""
        return self._budgets.get(owner) or self._budgets.get(EVERYBODY)

    def allowance(self, owner: str, planned: CostInput) -> Spending | None:
        """What the answer may take; None without a budget. Raises PriceUnknown."""
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
        # One that is waited for in vain is paid for as well as the next one that answers.
        calls = [(each.name, Tokens(limit, each.parameters.max_tokens)) for each in planned.candidates]
        amount = sum(self._cost(*call) for call in calls)
        if planned.follows and planned.looks_up:
            # Asked of the first one that doesn't rest then.
            rewrite = Tokens(rewrite_at_most(planned.question), REWRITING.max_tokens)
            amount += max((self._cost(c.name, rewrite) for c in planned.candidates if c.model.writes), default=0)
        return Spending(limit, before, Reservation(amount, budget))

    def reservation(self, owner: str, model: str, most: Tokens) -> Reservation | None:
        """What a single call may cost; None without a budget. Raises PriceUnknown."""
        budget = self.of(owner)
        return Reservation(self._cost(model, most), budget, writes=most.output > 0) if budget is not None else None

    def _cost(self, name: str, most: Tokens) -> int:
        cost = self._models.cost_at_most(name, most)
        if cost is None:
            raise PriceUnknown(
                f"You have a budget, and what {name} costs is not known. Choose another model, or have its price set "
                "in MODELS_FILE (providers, models, price; 0 where it costs nothing).",
                model=name,
            )
        return cost
