"""The embedded default: no language model. It answers by quoting the sentences that fit the question best."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from backend.chains.models.base import Finish, Listing, Output, Plugin, Prompt, Quote, Text, Tokens
from backend.chains.passages import Passage
from backend.chains.retrieval.sentences import sentences
from backend.chains.words import words
from backend.config.settings import ModelSettings
from backend.errors import ModelNotFound

MODEL = "quotes"
MAX_QUOTES = 3
_CANDIDATES = 16
_FLOOR = 0.42
_NEAR_BEST = 0.85
_MIN_WORDS = 3
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
class _Candidate:
    n: int
    start: int
    end: int
    text: str
    lexical: float
    score: float = 0.0


class _Extractive:
    writes = False

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        if prompt.grounding != "passages":
            yield Text(_SAYS[prompt.grounding])
        else:
            best = await _best_sentences(prompt)
            if not best:
                yield Text(_SAYS["nothing_relevant"])
            for number, sentence in enumerate(best):
                if number:
                    yield Text(" ")
                yield Quote(sentence.text, sentence.n, sentence.start, sentence.end)
        yield Tokens(input=0, output=0)
        yield Finish("stop")


async def _best_sentences(prompt: Prompt) -> list[_Candidate]:
    """At most MAX_QUOTES sentences, the best first; none when no sentence answers."""
    wanted = set(words(prompt.question))
    candidates = _candidates(prompt.passages, wanted)
    if not candidates or prompt.similarity is None:
        return []
    candidates = sorted(candidates, key=lambda c: -c.lexical)[:_CANDIDATES]
    close = await prompt.similarity(prompt.question, [c.text for c in candidates])
    for candidate, cosine in zip(candidates, close, strict=True):
        candidate.score = 0.6 * cosine + 0.4 * candidate.lexical
    candidates.sort(key=lambda c: -c.score)
    floor = max(_FLOOR, _NEAR_BEST * candidates[0].score)
    chosen: list[_Candidate] = []
    for candidate in candidates:
        if candidate.score < floor or len(chosen) == MAX_QUOTES:
            break
        # The same sentence in two documents is one answer.
        if not any(_alike(candidate.text, other.text) for other in chosen):
            chosen.append(candidate)
    return chosen


def _candidates(passages: Sequence[Passage], wanted: set[str]) -> list[_Candidate]:
    """All sentences, with the share of the question's words each holds, rare words counting more.

    Words of the passage's heading and title count a little: "Refunds > Deadline" says what "30 days" is about.
    """
    found: list[_Candidate] = []
    for n, passage in enumerate(passages, 1):
        for start, end in sentences(passage.text):
            text = passage.text[start:end]
            # A heading or a question is no answer.
            if len(words(text)) >= _MIN_WORDS and not text.endswith(("?", "？")):
                found.append(_Candidate(n, passage.start + start, passage.start + end, text, 0.0))
    bags = [set(words(c.text)) for c in found]
    seen = Counter(word for bag in bags for word in bag)
    weight = {w: math.log(1 + (len(found) + 1) / (seen[w] + 0.5)) for w in wanted}
    total = sum(weight.values()) or 1.0
    for candidate, bag in zip(found, bags, strict=True):
        passage = passages[candidate.n - 1]
        about = set(words(f"{passage.heading or ''} {passage.title}"))
        held = sum(weight[w] if w in bag else 0.5 * weight[w] for w in wanted if w in bag or w in about)
        candidate.lexical = held / total
    return found


def _alike(one: str, other: str) -> bool:
    a, b = set(words(one)), set(words(other))
    return len(a & b) >= 0.8 * min(len(a), len(b)) if a and b else one == other


class _Provider:
    def __init__(self, settings: ModelSettings) -> None:
        del settings

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
    summary="answers by quoting the documents, without a language model",
    create=_Provider,
    default_rank=30,
)
