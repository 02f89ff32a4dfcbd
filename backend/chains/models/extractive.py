"""The built-in default, which is not a language model: it answers with the sentences that fit the question best."""

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from backend.chains.models.prompt import WRITING, Finish, Output, Prompt, Quote, Text, Tokens
from backend.chains.models.provider import FREE, Endpoint, Kind, Listing, Plugin
from backend.chains.passages import RELEVANCE_OF_WORDS, Passage
from backend.chains.text.sentences import sentences
from backend.chains.text.small_talk import SmallTalk, small_talk_of
from backend.chains.text.words import words
from backend.config.groups.models import ModelSettings
from backend.errors import ModelNotFound

MODEL = "quotes"
MAX_NAMES = 20
"""The most names of documents that an answer lists."""
# The most sentences that are compared with the question by meaning. Each comparison takes a few milliseconds.
_COMPARED = 8
# A sentence is an answer if the mean of its relevance and its passage's relevance is at least this.
_FLOOR = 0.63
# The share of the first quote's score that a second quote needs, and the weight of question words that only the second
# quote contains.
_NEAR_BEST = 0.85
_NEW_WORDS = 0.6
# A sentence shorter than this number of characters has a lower score, by at most this weight.
_FULL_LENGTH, _LENGTH_WEIGHT = 120, 0.2
_MIN_WORDS = 3
# Two sentences with at least this share of common words count as equal.
_MIN_SHARED_WORDS = 0.8
_HEADING = re.compile(r"#{1,6}\s")
_QUOTES_ONLY = "This server has no language model yet, so it answers by quoting."
_ADVICE = " For written answers set OPENAI_API_KEY (or OPENAI_BASE_URL), or start Ollama, and restart."
_NO_DOCUMENTS = (
    "No documents are uploaded yet, so there is nothing to answer from. Upload one with POST /documents/upload and ask "
    "again."
)
_NOTHING_FOUND = (
    "The documents hold no answer to this question that I could find. Try other words, or upload a document that "
    "covers it."
)
_REPLIES = {
    "off": f"Documents are off for this message, and there is nothing else to quote from. {_QUOTES_ONLY}",
    "no_documents": f"{_NO_DOCUMENTS} {_QUOTES_ONLY}",
    "nothing_relevant": _NOTHING_FOUND,
}
_SMALL_TALK: dict[SmallTalk, str] = {
    "greeting": "Hello! Ask me something that your documents answer, and I quote the sentences that say it.",
    "thanks": "You're welcome. Ask me anything else that your documents answer.",
    "abilities": "I answer questions about the documents that you upload, with their own words, and say where each "
    f"sentence stands. {_QUOTES_ONLY}",
    "documents": "",
    "summary": f"I can't summarise, but I can answer questions about what the documents say. {_QUOTES_ONLY}",
}


@dataclass(slots=True)
class _QuoteCandidate:
    """A sentence of passage `n`. `lead` is a label or a question before it that it answers, mostly empty.
    `question_words` are the words of the question that it contains, with their weights.
    """

    n: int
    start: int
    end: int
    text: str
    lead: str
    words: set[str]
    question_words: dict[str, float] = field(default_factory=dict[str, float])
    score: float = 0.0

    @property
    def lexical(self) -> float:
        """The weighted share of the question's words that the sentence contains, 0 to 1."""
        return sum(self.question_words.values())


class _Extractive:
    writes = False

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        small_talk = small_talk_of(prompt.question)
        if small_talk is not None and not prompt.passages:
            yield Text(_small_talk_reply(small_talk, prompt))
        elif prompt.grounding != "passages":
            yield Text(_with_advice(_REPLIES[prompt.grounding], prompt))
        else:
            quotes = await _quotes(prompt)
            if not quotes:
                yield Text(_REPLIES["nothing_relevant"])
            for number, quote in enumerate(quotes):
                if number:
                    yield Text(" ")
                yield Quote(quote.text, quote.n, quote.start, quote.end)
        yield Tokens(input=0, output=0)
        yield Finish("stop")


def _with_advice(reply: str, prompt: Prompt) -> str:
    """The reply, and how to get a language model if it says that there is none."""
    return reply + _ADVICE if _QUOTES_ONLY in reply and prompt.shows_advice else reply


def _small_talk_reply(small_talk: SmallTalk, prompt: Prompt) -> str:
    """The reply to a message that is no question about what the documents say."""
    reply = _with_advice(_SMALL_TALK[small_talk], prompt)
    if small_talk in ("greeting", "thanks"):
        return reply
    names = prompt.document_names
    if not names:
        return f"{reply} {_NO_DOCUMENTS}".strip()
    listed = "\n".join(f"- {name}" for name in names[:MAX_NAMES])
    more = "\n- and more: GET /documents lists them all" if len(names) > MAX_NAMES else ""
    return f"{reply} I can search these documents:\n\n{listed}{more}".strip()


async def _quotes(prompt: Prompt) -> list[_QuoteCandidate]:
    """The sentence that answers best, and a second one if it adds to the first; empty if no sentence answers."""
    candidates = _candidates(prompt.passages, set(words(prompt.question)))
    for candidate in candidates:
        length = min(1.0, len(candidate.text) / _FULL_LENGTH)
        candidate.score = candidate.lexical + prompt.passages[candidate.n - 1].score + _LENGTH_WEIGHT * length
    candidates = sorted(candidates, key=lambda c: -c.score)[:_COMPARED]
    if not candidates or prompt.similarity is None:
        return []
    cosines = await prompt.similarity(prompt.question, [f"{c.lead} {c.text}".lstrip() for c in candidates])
    answers: list[_QuoteCandidate] = []
    for candidate, cosine in zip(candidates, cosines, strict=True):
        candidate.score += cosine
        relevance = cosine + RELEVANCE_OF_WORDS * candidate.lexical
        if (relevance + prompt.passages[candidate.n - 1].relevance) / 2 >= _FLOOR:
            answers.append(candidate)
    if not answers:
        return []
    best = max(answers, key=lambda c: c.score)
    second = _second(best, answers)
    if second is None:
        return [best]
    # Two sentences of the same passage stay in its order.
    return [second, best] if second.n == best.n and second.start < best.start else [best, second]


def _second(best: _QuoteCandidate, candidates: Sequence[_QuoteCandidate]) -> _QuoteCandidate | None:
    """The second quote: its score is nearly as high, and words of the question that the best quote lacks count more."""

    def worth(candidate: _QuoteCandidate) -> float:
        new_words = (weight for word, weight in candidate.question_words.items() if word not in best.question_words)
        return candidate.score + _NEW_WORDS * sum(new_words)

    # The same sentence in two documents is one answer.
    different = [c for c in candidates if not _alike(c, best)]
    second = max(different, key=worth, default=None)
    return second if second is not None and worth(second) >= _NEAR_BEST * best.score else None


def _candidates(passages: Sequence[Passage], query_words: set[str]) -> list[_QuoteCandidate]:
    """All sentences that may answer, with the words of the question that each contains. Rare words weigh more.

    Words of the title and the headings weigh half: "Refunds > Deadline" tells what "30 days" is about.
    """
    candidates: list[_QuoteCandidate] = []
    for n, passage in enumerate(passages, 1):
        lead = ""
        for start, end in sentences(passage.text):
            text = passage.text[start:end]
            if not _may_answer(text, passage.heading):
                lead = text
                continue
            candidates.append(
                _QuoteCandidate(n, passage.start + start, passage.start + end, text, lead, set(words(text)))
            )
            lead = ""
    counts = Counter(word for candidate in candidates for word in candidate.words)
    weight = {w: math.log(1 + (len(candidates) + 1) / (counts[w] + 0.5)) for w in query_words}
    total = sum(weight.values()) or 1.0
    about = [set(words(f"{p.document_name} {p.heading or ''} {p.context or ''}")) for p in passages]
    for candidate in candidates:
        for word in query_words & (candidate.words | about[candidate.n - 1] | set(words(candidate.lead))):
            candidate.question_words[word] = weight[word] / total * (1.0 if word in candidate.words else 0.5)
    return candidates


def _may_answer(text: str, heading: str | None) -> bool:
    """Whether the text is a statement, not a question, a heading or a label of one or two words."""
    if text.endswith(("?", "？")) or _HEADING.match(text) or (heading is not None and text in heading.split(" > ")):
        return False
    return text.endswith((".", "!", "。", "！")) or len(words(text)) >= _MIN_WORDS


def _alike(left: _QuoteCandidate, right: _QuoteCandidate) -> bool:
    return len(left.words & right.words) >= _MIN_SHARED_WORDS * min(len(left.words), len(right.words))


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
