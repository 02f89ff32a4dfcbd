"""Reserves and books calls of models that belong to no run: titles, summaries, embeddings."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager

import msgspec

from backend import events as ev
from backend.chains.models.prompt import Tokens
from backend.chains.retrieval.embeddings import EmbeddingUsage, charge_embeddings_to
from backend.kit.ids import new_id
from backend.services.models.pricing import Pricing
from backend.services.telemetry.telemetry import Telemetry
from backend.services.usage.bookings import Booking, Bookings
from backend.services.usage.budgets import Budgets
from backend.storage.usage.ledger import Ledger, NewCall


class Metering:
    """Books the calls outside of runs for their owners. A run's calls are booked in the commit that ends the run."""

    def __init__(self, ledger: Ledger, budgets: Budgets, pricing: Pricing, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._pricing = pricing
        self._telemetry = telemetry
        self._bookings = Bookings(ledger)

    async def close(self) -> None:
        """Write the late bookings, if the database allows it now."""
        await self._bookings.close()

    @asynccontextmanager
    async def outside_run(
        self, owner: str, session_id: str | None, model: str, bound: Tokens
    ) -> AsyncGenerator[list[ev.Usage]]:
        """Reserve the cost of a call of at most `bound` tokens until the end of the block, then book the usage that the
        block added to the list. Raises BudgetExceeded, PriceUnknown."""
        reservation = self._budgets.reservation(owner, model, bound)
        reservation_id = new_id("res") if reservation is not None else None
        calls: list[ev.Usage] = []
        try:
            # Inside the try: a task that is cancelled while the reservation is written must release it, too.
            if reservation is not None and reservation_id is not None:
                await self._ledger.reserve(owner, reservation, reservation_id)
            yield calls
        finally:
            if calls or reservation_id is not None:
                await self._book(owner, session_id, calls, reservation_id)

    def embedding(self, owner: str) -> AbstractContextManager[None]:
        """A block in which each request to a provider of embeddings is reserved and booked, as in `outside_run`."""

        @asynccontextmanager
        async def request(model: str, bound: int) -> AsyncGenerator[EmbeddingUsage]:
            async with self.outside_run(owner, None, model, Tokens(bound, 0)) as calls:
                embedding_usage = EmbeddingUsage()
                try:
                    yield embedding_usage
                finally:
                    call = ev.Usage(
                        model=model,
                        purpose="embedding",
                        input_tokens=embedding_usage.tokens,
                        output_tokens=0,
                        estimated=embedding_usage.estimated,
                    )
                    if embedding_usage.tokens:
                        calls.append(call)

        return charge_embeddings_to(request)

    async def _book(
        self, owner: str, session_id: str | None, calls: Sequence[ev.Usage], reservation_id: str | None
    ) -> None:
        for call in calls:
            self._pricing.charge(call)
            self._telemetry.call(call)
        await self._bookings.book(Booking(owner, session_id, calls_of(calls), reservation_id))


def calls_of(usages: Sequence[ev.Usage]) -> list[NewCall]:
    """Usage events as rows of the ledger."""
    return [
        NewCall(
            purpose=usage.purpose,
            model=usage.model,
            status=usage.status,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cached_tokens=usage.cached_tokens,
            estimated=usage.estimated,
            price=msgspec.json.encode(usage.price).decode() if usage.price is not None else None,
            cost=usage.cost,
        )
        for usage in usages
    ]
