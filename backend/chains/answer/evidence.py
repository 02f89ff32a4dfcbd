"""Finds the quote in a passage that supports a sentence of an answer, if there is one.

A quote must share enough words with the sentence, or be close enough in meaning. It must contain all numbers of the
sentence, and must not deny what the sentence affirms.
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
from backend.chains.text.json_claims import json_claims
from backend.chains.text.sentences import sentences
from backend.chains.text.words import words
from backend.errors import BudgetExceeded, EmbeddingError, PriceUnknown

# Measured, see docs/citations.md. A marked sentence needs enough shared words, or a close meaning, or some of both.
_SHARED = 0.6
_CLOSE = 0.65
_SOME_SHARED, _RATHER_CLOSE = 0.3, 0.55
# A sentence without a mark needs both.
_MATCH_SHARED, _MATCH_CLOSE = 0.4, 0.65
_MATCH_WORDS = 3
_MAX_ELSEWHERE = 0.3
"""The largest share of the sentence's words that may occur in the passage, but not in the quote: "The CEO was appointed
in 2021. The CFO resigned in 2019." doesn't support "the CEO resigned in 2021"."""
_MAX_CLAIMS, _MAX_MATCHED = 120, 24
"""The most sentences of a part without marks that are checked, and that are compared by meaning."""
_CANDIDATES = 6
_MAX_PAIR = 600
"""Longest quote of two sentences, in code points."""
_MAX_COMPARED = 200
"""The most comparisons by meaning in one answer. After them, only words decide."""


@dataclass(frozen=True, slots=True)
class Match:
    """A sentence, `[start:end]` of a part, that passage `n` (from 1) supports. `quote` are canonical offsets."""

    n: int
    start: int
    end: int
    quote: tuple[int, int]


class _Statement:
    """One sentence or two, with their words and numbers. `start` and `end` are offsets in the passage's text."""

    __slots__ = ("denied", "end", "numbers", "start", "text", "words")

    def __init__(self, text: str, start: int = 0, end: int = 0) -> None:
        self.text = text
        self.start = start
        self.end = end
        self.words = frozenset(words(text))
        self.numbers = _numbers(text)
        self.denied = _denied(text)

    def agrees(self, source: "_Statement") -> bool:
        """Whether the source has all numbers of this statement and no opposite of its words, and whether both deny the
        same words.

        `decreases` in the source and `increases` in this statement are opposites.
        """
        if not self.numbers <= source.numbers:
            return False
        for word in self.words - source.words:
            if (opposite := _OPPOSITES.get(word)) and source.words & opposite and not self.words & opposite:
                return False
        mine, theirs = self.denied & source.words, source.denied & self.words
        return not (mine or theirs) or bool(mine & theirs)


def _opposites(pairs: str) -> dict[str, set[str]]:
    opposites: dict[str, set[str]] = {}
    for pair in pairs.split():
        (left,), (right,) = map(words, pair.split("/"))
        opposites.setdefault(left, set()).add(right)
        opposites.setdefault(right, set()).add(left)
    return opposites


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
        """A word's weight: the fewer sources contain the word, the higher it is."""
        statements = [s for sources in self._sources for s in sources]
        counts = Counter(word for s in statements for word in s.words)
        return lambda word: math.log(1 + (len(statements) + 1) / (max(counts[word], 1) + 0.5))

    async def quote(self, sentence: str, n: int) -> tuple[int, int] | None:
        """The canonical offsets of the quote in passage `n` that supports the sentence; None if there is none."""
        claim = _Statement(self._without_marks(sentence, n))
        ranked = self._ranked(claim, n)
        if _QUANTITY.search(sentence):
            ranked = [r for r in ranked if r.elsewhere <= _MAX_ELSEWHERE]
        ranked = ranked[:_CANDIDATES]
        if not ranked:
            return None
        if ranked[0].share >= _SHARED:
            return self._offsets(ranked[0])
        cosine, best = await self._closest(sentence, ranked)
        if cosine >= _CLOSE or (cosine >= _RATHER_CLOSE and best.share >= _SOME_SHARED):
            return self._offsets(best)
        return None

    async def match(self, text: str, *, is_json: bool = False) -> list[Match]:
        """The sentences of a part without marks that a passage clearly supports, in order. In JSON, the values are
        the sentences."""
        # Off the loop: a long answer and many passages make many pairs.
        likely = await asyncio.to_thread(self._likely_claims, text, is_json)
        if likely:
            # Each source is embedded once, all of them together.
            await self._closest(likely[0][0].text, [r for _, sources in likely for r in sources])
        comparisons = await asyncio.gather(*(self._closest(claim.text, ranked) for claim, ranked in likely))
        return [
            Match(best.n, claim.start, claim.end, self._offsets(best))
            for (claim, _), (cosine, best) in zip(likely, comparisons, strict=True)
            if cosine >= _MATCH_CLOSE
        ]

    def _without_marks(self, sentence: str, n: int | None = None) -> str:
        """The sentence without `[n]`, and without numbers in brackets that name no source: its text holds them, but
        they state nothing."""
        count = len(self._passages)
        return _NUMBER_IN_BRACKETS.sub(
            lambda match: match.group() if 1 <= int(match[1]) <= count and int(match[1]) != n else "", sentence
        )

    def _likely_claims(self, text: str, is_json: bool) -> "list[tuple[_Statement, list[_Ranked]]]":
        """The claims of the text, with the sources of all passages that share many of their words."""
        claims: list[tuple[_Statement, list[_Ranked]]] = []
        found = json_claims(text) if is_json else [(a, b, self._without_marks(text[a:b])) for a, b in _claims(text)]
        for start, end, words_of_claim in found[:_MAX_CLAIMS]:
            claim = _Statement(words_of_claim, start, end)
            ranked = [r for n in range(1, len(self._passages) + 1) for r in self._ranked(claim, n)]
            ranked = [r for r in ranked if r.share >= _MATCH_SHARED and r.elsewhere <= _MAX_ELSEWHERE]
            if ranked:
                claims.append((claim, sorted(ranked, key=lambda r: -r.share)[:_CANDIDATES]))
        return claims[:_MAX_MATCHED]

    def _ranked(self, claim: _Statement, n: int) -> "list[_Ranked]":
        """The sources in passage `n` that agree with the claim; those that share most words come first.

        If no single sentence has all of the claim's numbers, two neighbouring sentences count as one source.
        """
        agreeing = [s for s in self._sources[n - 1] if claim.agrees(s)]
        if not agreeing and claim.numbers:
            agreeing = [s for s in self._pairs(n) if claim.agrees(s)]
        weight = self._weights
        total = sum(map(weight, claim.words)) or 1.0
        passage_words = frozenset[str]().union(*(s.words for s in self._sources[n - 1]))
        ranked = [
            _Ranked(
                n,
                source,
                share=sum(map(weight, claim.words & source.words)) / total,
                elsewhere=sum(map(weight, claim.words & passage_words - source.words)) / total,
            )
            for source in agreeing
        ]
        return sorted(ranked, key=lambda r: -r.share)

    def _pairs(self, n: int) -> Iterator[_Statement]:
        text = self._passages[n - 1].text
        for first, second in pairwise(self._sources[n - 1]):
            if second.end - first.start <= _MAX_PAIR:
                yield _Statement(text[first.start : second.end], first.start, second.end)

    async def _closest(self, sentence: str, ranked: "list[_Ranked]") -> "tuple[float, _Ranked]":
        """The cosine of the source that is closest in meaning, and that source. The cosine is 0 if the embedder fails,
        if the answer had its `_MAX_COMPARED` comparisons, or if the owner's budget doesn't allow one more."""
        self._compared += 1
        if self._compared > _MAX_COMPARED:
            return 0.0, ranked[0]
        try:
            cosines = await self._similarity(sentence, [r.source.text for r in ranked])
        except (EmbeddingError, BudgetExceeded, PriceUnknown):
            return 0.0, ranked[0]
        return max(zip(cosines, ranked, strict=True), key=lambda pair: pair[0])

    def _offsets(self, ranked: "_Ranked") -> tuple[int, int]:
        start = self._passages[ranked.n - 1].start
        return start + ranked.source.start, start + ranked.source.end


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A source in passage `n`. `share` is the share of a claim's words that the source contains; rare words count more.
    `elsewhere` is the share of the words that only the rest of the passage contains."""

    n: int
    source: _Statement
    share: float
    elsewhere: float


# Code is not a statement, and neither is a heading, a question or the row of a table.
_CODE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.M | re.S)


def _claims(text: str) -> list[tuple[int, int]]:
    code = [m.span() for m in _CODE.finditer(text)]
    claims: list[tuple[int, int]] = []
    position = 0
    for start, end in [*code, (len(text), len(text))]:
        for a, b in sentences(text, position, start):
            claim = text[a:b]
            is_statement = not claim.startswith(("#", "|", ">")) and not claim.endswith(("?", "？", ":"))
            if is_statement and len(words(claim)) >= _MATCH_WORDS:
                claims.append((a, b))
        position = end
    return claims


_NUMBER_IN_BRACKETS = re.compile(r"[ \t]*\[{1,2}\^?(\d{1,3})\]{1,2}")
_LIST_NUMBER = re.compile(r"^\s*\(?\d{1,3}[.)]\s")
_GROUPED = re.compile(r"(?<=\d)[,.'\u00a0\u202f](?=\d{3}(?!\d))")
_QUANTITY = re.compile(r"(?<![^\W\d_])(?<![^\W\d_]-)\d")  # not IL-10, CD4
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS = {
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
    """Every number of the text, `1,000` as 1000 and `seven` as 7, without the numbers of list items."""
    text = _GROUPED.sub("", _LIST_NUMBER.sub("", text))
    digits = {n.replace(",", ".") for n in _NUMBER.findall(text)}
    return frozenset(
        digits | {_NUMBER_WORDS[w] for w in text.casefold().replace("-", " ").split() if w in _NUMBER_WORDS}
    )


_TOKEN = re.compile(r"[\w'’]+|[,;:.!?()]")
_NEGATION = re.compile(
    r"no|not|never|none|neither|nor|without|cannot|\w+n['’]t|nicht|kein\w{0,2}|nie|niemals|ohne|ne|pas|jamais|sans|nunca|sin"
)
_REACH = 3


def _denied(text: str) -> frozenset[str]:
    """The words that a negation denies: the next three after it, up to a comma or full stop."""
    denied: set[str] = set()
    left = 0
    for token in _TOKEN.findall(text.casefold()):
        if _NEGATION.fullmatch(token):
            left = _REACH
        elif not token[0].isalnum():
            left = 0
        elif left and (content := words(token)):
            denied.update(content)
            left -= 1
    return frozenset(denied)
