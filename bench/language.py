"""Text by the megabyte that a search index takes for natural: words as rare as in a language, and topics.

Common English words stand between made-up ones whose frequencies follow Zipf's law; each topic has words of its own.
The same seed gives the same text.
"""

import numpy as np

COMMON = (
    "the of and to in a is that for it was on are as with they at be this from have or by one had not but what all "
    "were when we there can an which their said if do will each about how up out them then she many some so these"
).split()
_SYLLABLES = (
    "ba cor den el fir gan hos il jur kel lan mir nor ost per quil ras sen tor ul ver win yor zan bri cal dro fen "
    "gol hem kra lit mon nes pol ron sil tan vor"
).split()
_ENDINGS = ("", "", "", "s", "ed", "ing", "er", "ion", "al", "ly")
WORDS = 20_000
TOPICS = 200
TOPIC_WORDS = 120


class Language:
    """Texts and questions of a number of topics."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._words = self._made_up()
        weights = 1 / np.arange(10, WORDS + 10)
        self._cumulated = np.cumsum(weights / weights.sum())
        self._topics = self._random.integers(0, WORDS, (TOPICS, TOPIC_WORDS))

    def _made_up(self) -> list[str]:
        words: dict[str, None] = {}
        while len(words) < WORDS:
            syllables = self._random.choice(_SYLLABLES, self._random.integers(2, 5))
            words["".join(syllables) + str(self._random.choice(_ENDINGS))] = None
        return list(words)

    def text(self, topic: int, length: int) -> str:
        """Sentences with about `length` characters in total."""
        count = length // 6
        kinds = self._random.random(count)
        rare = np.searchsorted(self._cumulated, self._random.random(count))
        topical = self._random.choice(self._topics[topic], count)
        common = self._random.integers(0, len(COMMON), count)
        words = [
            COMMON[common[i]] if kind < 0.45 else self._words[topical[i] if kind > 0.8 else min(rare[i], WORDS - 1)]
            for i, kind in enumerate(kinds)
        ]
        sentences: list[str] = []
        while words:
            size = int(self._random.integers(8, 20))
            sentence, words = " ".join(words[:size]), words[size:]
            sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
        return " ".join(sentences)

    def question(self, topic: int) -> str:
        """A question about the topic."""
        one, two, three = (self._words[number] for number in self._random.choice(self._topics[topic], 3))
        return f"What is the {one} of {two} and how does it {three}?"
