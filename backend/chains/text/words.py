"""Words of a text, for comparing by what two texts share. English endings are trimmed lightly."""

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
    """Content words in order, folded and trimmed; CJK text by pairs of characters."""
    found: list[str] = []
    for match in _WORD.finditer(text.casefold()):
        word = match.group().replace("’", "'").removesuffix("'s")
        if _CJK.search(word):
            found.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in STOPWORDS:
            found.append(_trim(word))
    return found


def _trim(word: str) -> str:
    """`limits` and `limit`, `billed` and `bill` and `billing` as one; too short or not alphabetic stays as it is."""
    if len(word) < 5 or not word.isalpha():
        return word.removesuffix("s") if len(word) == 4 and word.isalpha() and not word.endswith("ss") else word
    for ending, replacement in (("ies", "y"), ("ing", ""), ("edly", ""), ("ed", ""), ("es", ""), ("s", ""), ("ly", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + replacement
            break
    return word.removesuffix("e") if len(word) > 4 else word
