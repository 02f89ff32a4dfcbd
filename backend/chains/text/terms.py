"""Text to terms: what the lexical index compares. Words of a text and of a question meet here or not at all.

Words are folded and stemmed in the text's language; identifiers count whole and in their parts (`maxRetryCount`,
`IL-6`); scripts that put no blanks between words are cut into pairs of characters.
"""

import importlib
import re
import threading
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from backend.chains.text.languages import FUNCTION_WORDS, detect_language

__all__ = ["about_terms", "body_terms", "detect_language", "query_terms"]

# Vowel signs and accents belong to the word before them; `re` doesn't count them among its letters.
_MARKS = "".join(chr(c) for c in range(0x0300, 0x3100) if unicodedata.category(chr(c)).startswith("M"))
_WORD = re.compile(rf"[^\W_][^\W_{_MARKS}]*(?:[{_MARKS}]+[^\W_{_MARKS}]*)*")
_PARTS = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])",
)
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
# Porter's first stemmer is measured better in English than its successor.
_STEMMERS = {"english": "porter"}
_MAX_WORD = 64


def body_terms(sentences: Sequence[str], language: str | None) -> str:
    """The terms of a chunk, a line a sentence."""
    return "\n".join(" ".join(_terms(sentence, language)) for sentence in sentences)


def about_terms(language: str | None, *texts: str | None) -> str:
    """The terms of what stands above a chunk: name, title, headings, a table's header."""
    return " ".join(dict.fromkeys(term for text in texts if text for term in _terms(text, language)))


def query_terms(text: str, languages: Sequence[str | None]) -> list[str]:
    """The terms to look for, each once, in each of the languages that the documents have.

    Words that every text has are left out, unless there are no others.
    """
    spoken = languages or ("english",)
    own = detect_language(text)
    small = FUNCTION_WORDS.get(own or "", frozenset[str]()) | _SMALL_WORDS_OF_QUESTIONS
    telling = " ".join(word for word in _WORD.findall(text) if word.casefold() not in small)
    return list(dict.fromkeys(term for language in spoken for term in _terms(telling or text, language)))


_SMALL_WORDS_OF_QUESTIONS = FUNCTION_WORDS["english"]


def _terms(text: str, language: str | None) -> list[str]:
    found: list[str] = []
    for word in _WORD.findall(text):
        if _UNSPACED.search(word):
            found.extend(_pairs(word, language))
            continue
        parts = _PARTS.split(word)
        found.append(_stem(word.casefold()[:_MAX_WORD], language))
        if len(parts) > 1:
            found.extend(_stem(part.casefold()[:_MAX_WORD], language) for part in parts)
    return found


def _pairs(word: str, language: str | None) -> list[str]:
    found: list[str] = []
    at = 0
    for run in _UNSPACED.finditer(word):
        if before := word[at : run.start()]:
            found.append(_stem(before.casefold()[:_MAX_WORD], language))
        text = run.group()
        found.extend(text[i : i + 2] for i in range(max(1, len(text) - 1)))
        at = run.end()
    if rest := word[at:]:
        found.append(_stem(rest.casefold()[:_MAX_WORD], language))
    return found


@lru_cache(100_000)
def _stem(word: str, language: str | None) -> str:
    """The word's stem without accents, so that `café` and `cafe` are the same."""
    word = unicodedata.normalize("NFC", word)
    if language is not None and not any(map(str.isnumeric, word)):
        word = _stemmer(language).stemWord(word) or word  # of a lone "s" nothing would be left
    if word.isascii():
        return word
    # A ligature may stand for several words.
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not (_is_accent(c) or c.isspace()))
    return unicodedata.normalize("NFC", plain) or word


def _is_accent(character: str) -> bool:
    return "\u0300" <= character <= "\u036f"


_own = threading.local()


def _stemmer(language: str) -> Any:
    """A stemmer of this thread's: it keeps the word that it is at in itself."""
    stemmers: dict[str, Any] = _own.__dict__
    if language not in stemmers:
        library: Any = importlib.import_module("snowballstemmer")  # has no types
        stemmers[language] = library.stemmer(_STEMMERS.get(language, language))
    return stemmers[language]
