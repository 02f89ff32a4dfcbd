"""Numbers in brackets that are no citation marks: values, indexes, links, lists of sources, code and mathematics.

Only the text before the brackets on the same line is known, and the first character after them: the stream doesn't wait
for more.
"""

import re
from dataclasses import dataclass

_BARE = re.compile(r"(?:\[{1,2}[\d \t,;&–—-]+\]{1,2}[ \t,]*)+")
"""Marks without words or signs: they may as well be values."""
_SEVERAL = re.compile(r"\d[ \t]*[,;&–—-][ \t]*\d")
# An index of a list: items[0], a[1] = 2, f[1](x).
_INDEXED = re.compile(r"[ \t]*(?:=|\+=)|[\w(\[{]|\.\w")
_IDENTIFIER = re.compile(
    r"(?:[\w.]*(?:_|\d)\w*|[\\_^{}]|[a-z]+[A-Z]\w*|(?<![\w'’])[a-z]|\b(?:arr|args|argv|idx|tmp|buf|vec|nums|params"
    r"|tokens|kwargs|tuple|array|list|items|rows|cols|matrix|vector))\Z"
)
# A line that lists sources, or the beginning of one.
_LISTS = re.compile(
    r"[\W_]*(?:sources?|references?|citations?|footnotes?|bibliography|quellen?|literatur|fuentes|r[eé]f[eé]rences)"
    r"\b[\W_]{0,4}:",
    re.I,
)
_LINE_START = re.compile(r"[ \t]*(?:(?:[-*•+>]|#{1,6}|\d{1,2}[.)])[ \t]*)?\Z")
_OPERATORS = "=≈≠≡≤≥∈∉⊂⊆∪∩×·÷±→←↦⇒↔"
_OPERATOR_BEFORE = re.compile(rf"(?:[{_OPERATORS}]|:=|[=-]>|\s[<>*+/|&^-]|\\[a-zA-Z]+)[ \t]*\Z")
_CALL = re.compile(r"(?:[\w\])]\(|[\[{]|,[ \t]*[\[{][^\[\]]*)[ \t]*\Z")
_KEY = re.compile(r"(?:[\"'”’`][ \t]*:|^[ \t>*-]*[\w .-]{1,40}:)[ \t]*\Z")
_QUOTE = re.compile(r"(?<!\w)[\"'“‘„«][ \t]*\Z")
_EMPTY_CELL = re.compile(r"\|[ \t]*\Z")
# LaTeX between dollars, which are also prices: "$x \in [1, 2]$", but not "$5 [1]".
_LATEX = re.compile(r"(?<![\\$\w])\$(?:[^$]*[\\=_^{}()<>+][^$]*|[^$\d]{0,12})\Z")
# A sentence doesn't end after these words: "it returns [1]", "the list is [1, 2]".
_WANTS_VALUE = re.compile(
    r"\b(?:between|is|are|was|were|be|becomes?|equals?|equal to|contains?|includes?|has|have|gives?|yields?|returns?"
    r"|prints?|outputs?|holds?|like|than|namely|e\.g\.|i\.e\.|the|an?|let|set|append|push|sort(?:ing|ed)?|ist|sind|ergibt"
    r"|enthält|liefert|est|sont|donne|contient|renvoie|es|son|contiene|devuelve)[ \t]*\Z",
    re.I,
)
# What is said of these is often a value.
_HAS_VALUE = re.compile(
    r"\b(?:arrays?|lists?|vectors?|matri(?:x|ces)|tuples?|sets?|subsets?|sequences?|series|intervals?|ranges?|domains?"
    r"|pairs?|triples?|points?|coordinates?|shapes?|dimensions?|sizes?|ind(?:ex|ices|exes)|ids?|keys?|values?|numbers?"
    r"|elements?|items?|entr(?:y|ies)|inputs?|outputs?|arguments?|parameters?|results?|slices?|rows?|columns?|weights?"
    r"|scores?|labels?|bins?|buckets?|json|figures?|fig\.|tables?|equations?|eq\.|sections?|chapters?|steps?|lines?"
    r"|pages?|versions?|levels?|options?|positions?|intervall\w*|bereich\w*|listen?|felde?r?|vektor\w*|mengen?|folgen?"
    r"|werte?|paar|punkt|intervalles?|tableaux?|listes?|vecteurs?|ensembles?|suites?|valeurs?|intervalos?|rangos?"
    r"|listas?|vectores|conjuntos?|arreglos?|matri(?:z|ces)|valores|intervalli?|elenchi|elenco|insiemi?|vettor[ei]|valori)"
    r"[ \t]*\Z",
    re.I,
)
_PREPOSITION = re.compile(r"\b(?:of|with|from|over|in|as|such as|like|von|aus|de|da|di)[ \t]*\Z", re.I)
_CLAUSE_END = ("", "\n", "\r", *".,;:!?)。，；：！？")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around the brackets. `line` is the beginning of their line and `before` its last text. `after` is
    what follows; only its first character that is no blank counts. `is_attached`: no blank stands before them."""

    line: str
    before: str
    after: str
    is_attached: bool
    previous_line_end: str
    """The last character of the lines before; empty if they hold nothing."""

    @property
    def following(self) -> str:
        """The first character after the brackets that is no blank."""
        return self.after.lstrip(" \t")[:1]

    @property
    def begins_line(self) -> bool:
        """Whether nothing but the sign of a list item stands before the brackets."""
        return _LINE_START.fullmatch(self.line + self.before if self.line != self.before else self.line) is not None


def is_bare(run: str) -> bool:
    """Whether these brackets hold only numbers, so that they may be values."""
    return _BARE.fullmatch(run) is not None


def looks_like_text(run: str, numbers: tuple[int, ...], around: Surroundings) -> bool:
    """Whether the brackets are part of the text: it would lose something without them."""
    following = around.following
    begins_item = around.begins_line and following not in ("", "\n", "\r", *".,;!?)")
    is_link = around.after[:1] == "(" and run[0] == "["
    is_index = around.is_attached and (
        0 in numbers or _INDEXED.match(around.after) is not None or _IDENTIFIER.search(around.before) is not None
    )
    if begins_item or is_link or is_index or _LISTS.match(around.line):
        return True
    return is_bare(run) and _is_value(run, around)


def _is_value(run: str, around: Surroundings) -> bool:
    """Whether brackets with nothing but numbers are a value."""
    before, following = around.before, around.following
    has_several = _SEVERAL.search(run) is not None
    if _OPERATOR_BEFORE.search(before) or _CALL.search(before) or _KEY.search(before) or _LATEX.search(before):
        return True
    if following and following in f"{_OPERATORS}]}}^+":
        return True
    if following and following in "\"'”’“»" and _QUOTE.search(before):
        return True
    if _EMPTY_CELL.search(before) and following == "|":
        return True
    if around.begins_line and (around.line.strip() or (has_several and around.previous_line_end in ("", ":"))):
        return True
    if _WANTS_VALUE.search(before):
        return True
    if has_several:
        before = _PREPOSITION.sub("", before)
    return _HAS_VALUE.search(before) is not None and (has_several or following not in _CLAUSE_END)
