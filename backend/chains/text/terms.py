"""Turns text into terms, which the lexical index compares: the terms of a question must be equal to those of a text.

Words are lower-cased and stemmed in the text's language. Identifiers (`maxRetryCount`, `IL-6`) are a term as a whole
and in their parts. Scripts without blanks between words are cut into pairs of characters.
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

# Vowel signs and accents belong to the word before them, but `re` doesn't treat them as letters.
_MARKS = "".join(chr(c) for c in range(0x0300, 0x3100) if unicodedata.category(chr(c)).startswith("M"))
_WORD = re.compile(rf"[^\W_][^\W_{_MARKS}]*(?:[{_MARKS}]+[^\W_{_MARKS}]*)*")
_PARTS = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])",
)
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
# Porter's first stemmer gives better results in English than its successor (measured).
_STEMMERS = {"english": "porter"}
_MAX_WORD = 64


def body_terms(sentences: Sequence[str], language: str | None) -> str:
    """The terms of a chunk's sentences, one line per sentence."""
    return "\n".join(" ".join(_terms(sentence, language)) for sentence in sentences)


def about_terms(language: str | None, *texts: str | None) -> str:
    """The terms of a chunk's document name, title, headings and table header."""
    return " ".join(dict.fromkeys(term for text in texts if text for term in _terms(text, language)))


def query_terms(text: str, languages: Sequence[str | None]) -> list[str]:
    """The terms of a query, without duplicates, stemmed in each of the documents' languages.

    Function words are left out, unless the query has no other words.
    """
    own_language = detect_language(text)
    function_words = FUNCTION_WORDS.get(own_language or "", frozenset[str]()) | FUNCTION_WORDS["english"]
    content = " ".join(word for word in _WORD.findall(text) if word.casefold() not in function_words) or text
    return list(dict.fromkeys(term for language in languages or ("english",) for term in _terms(content, language)))


def _terms(text: str, language: str | None) -> list[str]:
    terms: list[str] = []
    for word in _WORD.findall(text):
        if _UNSPACED.search(word):
            terms.extend(_pairs(word, language))
            continue
        parts = _PARTS.split(word)
        terms.append(_stem(word.casefold()[:_MAX_WORD], language))
        if len(parts) > 1:
            terms.extend(_stem(part.casefold()[:_MAX_WORD], language) for part in parts)
    return terms


def _pairs(word: str, language: str | None) -> list[str]:
    """The terms of a word in a script without blanks: pairs of characters."""
    pairs: list[str] = []
    at = 0
    for run in _UNSPACED.finditer(word):
        if before := word[at : run.start()]:
            pairs.append(_stem(before.casefold()[:_MAX_WORD], language))
        text = run.group()
        pairs.extend(text[i : i + 2] for i in range(max(1, len(text) - 1)))
        at = run.end()
    if rest := word[at:]:
        pairs.append(_stem(rest.casefold()[:_MAX_WORD], language))
    return pairs


@lru_cache(100_000)
def _stem(word: str, language: str | None) -> str:
    """The word's stem without accents, so that `café` and `cafe` are the same."""
    word = unicodedata.normalize("NFC", word)
    if language is not None and not any(map(str.isnumeric, word)):
        word = _stemmer(language).stemWord(word) or word  # the stem of a lone "s" is empty
    if word.isascii():
        return word
    # A ligature may stand for several words.
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not (_is_accent(c) or c.isspace()))
    return unicodedata.normalize("NFC", plain) or word


def _is_accent(character: str) -> bool:
    return "\u0300" <= character <= "\u036f"


_of_thread = threading.local()


def _stemmer(language: str) -> Any:
    """The stemmer of a language for this thread: a stemmer stores its present word, so threads can't share it."""
    stemmers: dict[str, Any] = _of_thread.__dict__
    if language not in stemmers:
        library: Any = importlib.import_module("snowballstemmer")  # has no types
        stemmers[language] = library.stemmer(_STEMMERS.get(language, language))
    return stemmers[language]
