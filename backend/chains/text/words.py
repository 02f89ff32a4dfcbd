"""The content words of a text, for comparing two texts. English endings are removed roughly."""

import re

_WORD = re.compile(r"\w+(?:[.'’-]\w+)*", re.UNICODE)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
STOPWORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each few for from further had has have having he her here hers him his
    how i if in into is it its itself just me more most my no nor not now of off on once only or other our out over own
    please same she should so some such tell than that the their them then there these they this those through to too
    under until up us very was we were what when where which while who whom whose why will with would you your
    give explain describe according document documents say says said""".split()
)


def words(text: str) -> list[str]:
    """The content words in order, lower-cased and without endings; CJK text as pairs of characters."""
    content: list[str] = []
    for match in _WORD.finditer(text.casefold()):
        word = match.group().replace("’", "'").removesuffix("'s")
        if _CJK.search(word):
            content.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in STOPWORDS:
            content.append(_trim(word))
    return content


def _trim(word: str) -> str:
    """The word without its ending: `limits` and `limit` are equal, `billed`, `billing` and `bill`, too.

    Words that are short or not alphabetic stay unchanged.
    """
    if len(word) < 5 or not word.isalpha():
        return word.removesuffix("s") if len(word) == 4 and word.isalpha() and not word.endswith("ss") else word
    for ending, replacement in (("ies", "y"), ("ing", ""), ("edly", ""), ("ed", ""), ("es", ""), ("s", ""), ("ly", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + replacement
            break
    return word.removesuffix("e") if len(word) > 4 else word
