"""Whether the passages support what an answer says, and which of their sentences says so.

A quote must share enough of the sentence's words, or be close enough in meaning; its numbers must be the sentence's,
and it must not deny what the sentence affirms.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from backend.chains.passages import Passage, Similarity
from backend.chains.text.sentences import sentences
from backend.chains.text.words import words
from backend.errors import BudgetExceeded, EmbeddingError, PriceUnknown

# Measured, see docs/citations.md. A marked sentence needs enough words, or a close meaning, or some of both.
_SHARED = 0.6
_CLOSE = 0.65
_SOME_SHARED, _RATHER_CLOSE = 0.3, 0.55
# A sentence without a mark: both.
_MATCH_SHARED, _MATCH_CLOSE = 0.4, 0.65
_MATCH_WORDS = 3
_ELSEWHERE = 0.3
"""Most of the sentence's words that may stand in the passage, but not in the quote: "the CEO resigned in 2021" is not
said by "The CEO was appointed in 2021. The CFO resigned in 2019."."""
_MAX_CLAIMS, _MAX_MATCHED = 120, 24
"""Sentences of a part without marks that are looked at, and that are compared by meaning."""
_CANDIDATES = 6
_JOINED = 600
"""Longest quote of two sentences, in code points."""
_MAX_COMPARED = 200
"""Comparisons by meaning in one answer; marks beyond them are judged by words alone."""


@dataclass(frozen=True, slots=True)
class Match:
    """Sentence `[start:end]` of a part is supported by passage `n` (from 1): `quote`, canonical offsets."""

    n: int
    start: int
    end: int
    quote: tuple[int, int]


class _Statement:
    """A sentence or two, taken apart. `start`/`end` lie in its passage's text."""

    __slots__ = ("bag", "denied", "end", "numbers", "start", "text")

    def __init__(self, text: str, start: int = 0, end: int = 0) -> None:
        self.text = text
        self.start = start
        self.end = end
        self.bag = frozenset(words(text))
        self.numbers = _numbers(text)
        self.denied = _denied(text)

    def agrees(self, source: "_Statement") -> bool:
        """Whether the source has each of this one's numbers, and denies what this one denies and nothing else of it.

        A source that says `decreases` where this one says `increases` doesn't agree either.
        """
        if not self.numbers <= source.numbers:
            return False
        for word in self.bag - source.bag:
            if (opposite := _OPPOSITES.get(word)) and source.bag & opposite and not self.bag & opposite:
                return False
        mine, theirs = self.denied & source.bag, source.denied & self.bag
        return not (mine or theirs) or bool(mine & theirs)


def _opposites(pairs: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pair in pairs.split():
        (one,), (other,) = map(words, pair.split("/"))
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return found


_OPPOSITES = _opposites(
    "increase/decrease increase/reduce increase/lower higher/lower high/low rise/fall gain/loss promote/inhibit "
    "activate/inhibit induce/inhibit enhance/reduce enhance/impair improve/impair improve/worsen positive/negative "
    "allow/forbid allow/prohibit permit/prohibit include/exclude accept/reject approve/reject always/never "
    "mandatory/optional required/optional minimum/maximum start/end begin/end open/close enable/disable grant/deny"
)


class Evidence:
    """The passages of one answer, ready to be compared with its sentences."""

    def __init__(self, passages: Sequence[Passage], similarity: Similarity) -> None:
        self._passages = passages
        self._similarity = similarity
        self._compared = 0

    @cached_property
    def _sources(self) -> list[list[_Statement]]:
        return [[_Statement(p.text[a:b], a, b) for a, b in sentences(p.text) if b - a >= 3] for p in self._passages]

    @cached_property
    def _weights(self) -> Callable[[str], float]:
        """How much a word tells: the fewer sources hold it, the more."""
        every = [s for sources in self._sources for s in sources]
        seen = Counter(word for s in every for word in s.bag)
        return lambda word: math.log(1 + (len(every) + 1) / (max(seen[word], 1) + 0.5))

    async def quote(self, sentence: str, n: int) -> tuple[int, int] | None:
        """Where in the document (canonical offsets) passage `n` supports the sentence; None if it doesn't."""
        claim = _Statement(sentence)
        ranked = self._ranked(claim, n)
        if _QUANTITY.search(sentence):
            ranked = [r for r in ranked if r.elsewhere <= _ELSEWHERE]
        ranked = ranked[:_CANDIDATES]
        if not ranked:
            return None
        if ranked[0].share >= _SHARED:
            return self._place(ranked[0])
        close, best = await self._closest(sentence, ranked)
        if close >= _CLOSE or (close >= _RATHER_CLOSE and best.share >= _SOME_SHARED):
            return self._place(best)
        return None

    async def match(self, text: str) -> list[Match]:
        """The sentences of a part without marks that a passage supports beyond doubt, in order."""
        # Off the loop: a long answer and many passages make many pairs.
        likely = await asyncio.to_thread(self._likely, text)
        if likely:
            # Each source is embedded once, all of them together.
            start, end, _ = likely[0]
            await self._closest(text[start:end], [r for _, _, sources in likely for r in sources])
        judged = await asyncio.gather(*(self._closest(text[a:b], ranked) for a, b, ranked in likely))
        return [
            Match(best.n, start, end, self._place(best))
            for (start, end, _), (close, best) in zip(likely, judged, strict=True)
            if close >= _MATCH_CLOSE
        ]

    def _likely(self, text: str) -> "list[tuple[int, int, list[_Ranked]]]":
        """Sentences of the text, each with the sources, of any passage, that share much with it."""
        found: list[tuple[int, int, list[_Ranked]]] = []
        for start, end in _claims(text)[:_MAX_CLAIMS]:
            claim = _Statement(text[start:end])
            ranked = [r for n in range(1, len(self._passages) + 1) for r in self._ranked(claim, n)]
            ranked = [r for r in ranked if r.share >= _MATCH_SHARED and r.elsewhere <= _ELSEWHERE]
            if ranked:
                found.append((start, end, sorted(ranked, key=lambda r: -r.share)[:_CANDIDATES]))
        return found[:_MAX_MATCHED]

    def _ranked(self, claim: _Statement, n: int) -> "list[_Ranked]":
        """The sources in passage `n` that agree with the claim, most shared first.

        Two sentences that follow each other are one source where neither has all of the claim's numbers.
        """
        agreeing = [s for s in self._sources[n - 1] if claim.agrees(s)]
        if not agreeing and claim.numbers:
            agreeing = [s for s in self._joined(n) if claim.agrees(s)]
        weight = self._weights
        total = sum(map(weight, claim.bag)) or 1.0
        held = frozenset[str]().union(*(s.bag for s in self._sources[n - 1]))
        ranked = [
            _Ranked(
                n,
                source,
                share=sum(map(weight, claim.bag & source.bag)) / total,
                elsewhere=sum(map(weight, claim.bag & held - source.bag)) / total,
            )
            for source in agreeing
        ]
        return sorted(ranked, key=lambda r: -r.share)

    def _joined(self, n: int) -> Iterator[_Statement]:
        text = self._passages[n - 1].text
        for one, two in pairwise(self._sources[n - 1]):
            if two.end - one.start <= _JOINED:
                yield _Statement(text[one.start : two.end], one.start, two.end)

    async def _closest(self, sentence: str, ranked: "list[_Ranked]") -> "tuple[float, _Ranked]":
        """The source that is closest in meaning, and its cosine: 0 when the embedder fails, has done enough, or
        can't be paid."""
        self._compared += 1
        if self._compared > _MAX_COMPARED:
            return 0.0, ranked[0]
        try:
            close = await self._similarity(sentence, [r.source.text for r in ranked])
        except (EmbeddingError, BudgetExceeded, PriceUnknown):
            return 0.0, ranked[0]
        return max(zip(close, ranked, strict=True), key=lambda pair: pair[0])

    def _place(self, found: "_Ranked") -> tuple[int, int]:
        start = self._passages[found.n - 1].start
        return start + found.source.start, start + found.source.end


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A source in passage `n`; the share of a claim's words (rare ones count more) that it holds, and of those that
    only the rest of the passage holds."""

    n: int
    source: _Statement
    share: float
    elsewhere: float


# Code is no statement, and neither is a heading, a question or the row of a table.
_CODE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.M | re.S)


def _claims(text: str) -> list[tuple[int, int]]:
    code = [m.span() for m in _CODE.finditer(text)]
    found: list[tuple[int, int]] = []
    at = 0
    for start, end in [*code, (len(text), len(text))]:
        for a, b in sentences(text, at, start):
            said = text[a:b]
            states = not said.startswith(("#", "|", ">")) and not said.endswith(("?", "？", ":"))
            if states and len(words(said)) >= _MATCH_WORDS:
                found.append((a, b))
        at = end
    return found


_LIST_NUMBER = re.compile(r"^\s*\(?\d{1,3}[.)]\s")
_GROUPED = re.compile(r"(?<=\d)[,.'\u00a0\u202f](?=\d{3}(?!\d))")
_QUANTITY = re.compile(r"(?<![^\W\d_])(?<![^\W\d_]-)\d")  # not IL-10, CD4
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SPELT = {
    word: str(number)
    for number, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)
} | {
    word: str(number)
    for number, word in zip(
        (14, 15, 18, 20, 30, 40, 50, 60, 90, 100),
        "fourteen fifteen eighteen twenty thirty forty fifty sixty ninety hundred".split(),
        strict=True,
    )
}


def _numbers(text: str) -> frozenset[str]:
    """Every number, `1,000` as 1000 and `seven` as 7; the number of a list's item is none."""
    text = _GROUPED.sub("", _LIST_NUMBER.sub("", text))
    digits = {n.replace(",", ".") for n in _NUMBER.findall(text)}
    return frozenset(digits | {_SPELT[w] for w in text.casefold().replace("-", " ").split() if w in _SPELT})


_TOKEN = re.compile(r"[\w'’]+|[,;:.!?()]")
_NEGATION = re.compile(
    r"no|not|never|none|neither|nor|without|cannot|\w+n['’]t|nicht|kein\w{0,2}|nie|niemals|ohne|ne|pas|jamais|sans|nunca|sin"
)
_REACH = 3


def _denied(text: str) -> frozenset[str]:
    """The words that a negation in front of them denies, by rule: the next few, up to a comma or stop."""
    found: set[str] = set()
    left = 0
    for token in _TOKEN.findall(text.casefold()):
        if _NEGATION.fullmatch(token):
            left = _REACH
        elif not token[0].isalnum():
            left = 0
        elif left and (content := words(token)):
            found.update(content)
            left -= 1
    return frozenset(found)
