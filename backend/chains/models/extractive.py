"""The embedded default: no language model. It answers by quoting the sentences that fit the question best."""

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from backend.chains.models.prompt import WRITING, Finish, Output, Prompt, Quote, Text, Tokens
from backend.chains.models.provider import FREE, Endpoint, Kind, Listing, Plugin
from backend.chains.passages import RELEVANCE_OF_WORDS, Passage
from backend.chains.text.sentences import sentences
from backend.chains.text.words import words
from backend.config.groups.models import ModelSettings
from backend.errors import ModelNotFound

MODEL = "quotes"
# Sentences whose meaning is compared with the question's: each costs a few milliseconds.
_COMPARED = 8
# The mean of the relevance of a sentence and of its passage, from which on it is an answer.
_FLOOR = 0.63
# What the second quote needs of the first one's score, and how much the words count that only it holds.
_NEAR_BEST = 0.85
_NEW_WORDS = 0.6
# A sentence shorter than this says less, in characters; all that it can lose by it.
_LONG, _LENGTH = 120, 0.2
_MIN_WORDS = 3
# The share of words from which on two sentences say the same.
_ALIKE = 0.8
_HEADING = re.compile(r"#{1,6}\s")
_FOR_MORE = (
    "This server has no language model yet, so it answers by quoting. For written answers set OPENAI_API_KEY "
    "(or OPENAI_BASE_URL), or start Ollama, and restart."
)
_SAYS = {
    "off": f"Documents are off for this message, and there is nothing else to quote from. {_FOR_MORE}",
    "no_documents": "No documents are uploaded yet, so there is nothing to answer from. Upload one with "
    f"POST /documents/upload and ask again. {_FOR_MORE}",
    "nothing_relevant": "The documents hold no answer to this question that I could find. Try other words, or upload "
    "a document that covers it.",
}


@dataclass(slots=True)
class _QuoteCandidate:
    """A sentence of passage `n`. `lead` is the label or the question in front of it that it answers, mostly empty.
    `held`: the question's words that it has, and how much each of them counts.
    """

    n: int
    start: int
    end: int
    text: str
    lead: str
    words: set[str]
    held: dict[str, float] = field(default_factory=dict[str, float])
    score: float = 0.0

    @property
    def lexical(self) -> float:
        """The share of the question's words that it holds, 0 to 1."""
        return sum(self.held.values())


class _Extractive:
    writes = False

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        if prompt.grounding != "passages":
            yield Text(_SAYS[prompt.grounding])
        else:
            quotes = await _quotes(prompt)
            if not quotes:
                yield Text(_SAYS["nothing_relevant"])
            for number, quote in enumerate(quotes):
                if number:
                    yield Text(" ")
                yield Quote(quote.text, quote.n, quote.start, quote.end)
        yield Tokens(input=0, output=0)
        yield Finish("stop")


async def _quotes(prompt: Prompt) -> list[_QuoteCandidate]:
    """The sentence that answers best, and one that adds to it; none when no sentence answers."""
    candidates = _candidates(prompt.passages, set(words(prompt.question)))
    for candidate in candidates:
        length = min(1.0, len(candidate.text) / _LONG)
        candidate.score = candidate.lexical + prompt.passages[candidate.n - 1].score + _LENGTH * length
    candidates = sorted(candidates, key=lambda c: -c.score)[:_COMPARED]
    if not candidates or prompt.similarity is None:
        return []
    cosines = await prompt.similarity(prompt.question, [f"{c.lead} {c.text}".lstrip() for c in candidates])
    vouched: list[_QuoteCandidate] = []
    for candidate, cosine in zip(candidates, cosines, strict=True):
        candidate.score += cosine
        relevance = cosine + RELEVANCE_OF_WORDS * candidate.lexical
        if (relevance + prompt.passages[candidate.n - 1].relevance) / 2 >= _FLOOR:
            vouched.append(candidate)
    if not vouched:
        return []
    best = max(vouched, key=lambda c: c.score)
    second = _second(best, vouched)
    if second is None:
        return [best]
    # From the same passage they are read in its order.
    return [second, best] if second.n == best.n and second.start < best.start else [best, second]


def _second(best: _QuoteCandidate, candidates: Sequence[_QuoteCandidate]) -> _QuoteCandidate | None:
    """What to say besides the best: nearly as good, most of all with those words of the question that it lacks."""

    def worth(candidate: _QuoteCandidate) -> float:
        return candidate.score + _NEW_WORDS * sum(w for word, w in candidate.held.items() if word not in best.held)

    # The same sentence in two documents is one answer.
    others = [c for c in candidates if not _alike(c, best)]
    second = max(others, key=worth, default=None)
    return second if second is not None and worth(second) >= _NEAR_BEST * best.score else None


def _candidates(passages: Sequence[Passage], wanted: set[str]) -> list[_QuoteCandidate]:
    """All sentences, with the question's words that each holds, rare words counting more.

    Words of what stands above count half: "Refunds > Deadline" says what "30 days" is about.
    """
    found: list[_QuoteCandidate] = []
    for n, passage in enumerate(passages, 1):
        lead = ""
        for start, end in sentences(passage.text):
            text = passage.text[start:end]
            if not _may_answer(text, passage.heading):
                lead = text
                continue
            found.append(_QuoteCandidate(n, passage.start + start, passage.start + end, text, lead, set(words(text))))
            lead = ""
    seen = Counter(word for candidate in found for word in candidate.words)
    weight = {w: math.log(1 + (len(found) + 1) / (seen[w] + 0.5)) for w in wanted}
    total = sum(weight.values()) or 1.0
    about = [set(words(f"{p.document_name} {p.heading or ''} {p.context or ''}")) for p in passages]
    for candidate in found:
        for word in wanted & (candidate.words | about[candidate.n - 1] | set(words(candidate.lead))):
            candidate.held[word] = weight[word] / total * (1.0 if word in candidate.words else 0.5)
    return found


def _may_answer(text: str, heading: str | None) -> bool:
    """Whether it says something: no question, no heading, no label of a word or two."""
    if text.endswith(("?", "？")) or _HEADING.match(text) or (heading is not None and text in heading.split(" > ")):
        return False
    return text.endswith((".", "!", "。", "！")) or len(words(text)) >= _MIN_WORDS


def _alike(one: _QuoteCandidate, other: _QuoteCandidate) -> bool:
    return len(one.words & other.words) >= _ALIKE * min(len(one.words), len(other.words))


class _Provider:
    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        del endpoint, settings

    async def listing(self) -> Listing:
        return Listing(True, "built in: quotes the documents, no language model", (MODEL,), MODEL)

    def open(self, model: str) -> _Extractive:
        if model != MODEL:
            raise ModelNotFound(f"extractive has one model: extractive/{MODEL}.")
        return _Extractive()

    async def aclose(self) -> None:
        pass


PLUGIN = Plugin(
    name="extractive",
    kinds=(
        Kind(
            name="extractive",
            summary="answers by quoting the documents, without a language model",
            key=False,
            default_rank=30,
            refuses=WRITING,
            price=FREE,
        ),
    ),
    create=_Provider,
)
