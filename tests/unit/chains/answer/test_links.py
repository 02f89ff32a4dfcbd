"""Unknown links and images become text, for every renderer, wherever the stream is cut; all else stays as it is."""

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.chains.answer.links import LinkFilter
from backend.chains.answer.marks import Mark
from backend.chains.answer.urls import LONGEST, KnownUrls
from tests.support import markdown
from tests.support.markdown import urls

GOOD = "https://good.test/x"
SITE = "https://docs.test"
TEXTS = [f"The guide is at {GOOD}. See also (https://wiki.test/Foo_(bar)), www.ok.test/a and mailto:me@good.test."]
KNOWN = KnownUrls(TEXTS, frozenset({("docs.test", 80), ("docs.test", 443)}))
ALLOWED = {GOOD, "https://wiki.test/Foo_(bar)", "www.ok.test/a", "mailto:me@good.test", f"{SITE}/a?b=c"}


def guarded(pieces: list[str]) -> tuple[str, int]:
    links: LinkFilter[Mark] = LinkFilter(KNOWN)
    out = [*(o for piece in pieces for o in links.feed(piece)), *links.close()]
    return "".join(o for o in out if isinstance(o, str)), links.broken


def leaks(text: str) -> set[str]:
    return markdown.leaks(text, ALLOWED, "docs.test")


def split_text(text: str, places: list[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise([0, *sorted(p % (len(text) + 1) for p in places), len(text)])]


BROKEN = [
    ("![chart](https://evil.test/?q=1)", "chart (image removed: https[://]evil[.]test/?q=1)"),
    ("![](https://evil.test/p.png)", "(image removed: https[://]evil[.]test/p[.]png)"),
    ("![a](jar:alert)", "a (image removed: jar[:]alert)"),
    ("[text](https://evil.test/a)", "text (https[://]evil[.]test/a)"),
    ('[text](https://evil.test/a "title")', "text (https[://]evil[.]test/a)"),
    ("[text](<https://evil.test/a>)", "text (https[://]evil[.]test/a)"),
    ("[text](<https://evil.test/a b>)", "text (link removed)"),
    ("[text](//evil.test/a)", "text (/ /evil[.]test/a)"),
    ("[text](\nhttps://evil.test/a)", "text (https[://]evil[.]test/a)"),
    (f"[text]({GOOD}?leak=1)", "text (https[://]good[.]test/x?leak=1)"),
    ("see https://evil.test/a.", "see https[://]evil[.]test/a."),
    ("<https://evil.test/a>", "https[://]evil[.]test/a"),
    ("www.evil.test/a", "www[.]evil[.]test/a"),
    ("//evil.test/a", "/ /evil[.]test/a"),
    ("[ref]: https://evil.test/a\n\n[ref]", "[ref] : https[://]evil[.]test/a\n\n[ref]"),
    ("mailto:a@evil.test?body=x", "mailto[:]a@evil[.]test?body=x"),
    ('<img alt="x" src="https://evil.test/a">', "(image removed: https[://]evil[.]test/a)"),
    ('<div style="background:url(x)">', '< div style="background:url(x)">'),
    ("<script>", "< script>"),
]


@pytest.mark.parametrize(("unsafe", "expected"), BROKEN)
def test_an_unknown_link_becomes_text(unsafe: str, expected: str) -> None:
    assert leaks(unsafe), "the judge must see what is to be broken"
    assert guarded([unsafe]) == (expected, 1)
    assert guarded(list(unsafe)) == (expected, 1)
    text, broken = guarded([f"Before\n\n{unsafe} after."])
    assert broken == 1
    assert leaks(text) == set()


UNCHANGED = [
    f"[guide]({GOOD}) and ![guide]({GOOD}), <{GOOD}>, {GOOD}, **{GOOD}**, [{GOOD}]({GOOD}).",
    f"[guide]: {GOOD}\n\nSee [guide].",
    f'<a href="{GOOD}">',
    "[guide](HTTPS://GOOD.test/x) [guide](http://good.test/x/)",
    "https://wiki.test/Foo_(bar) (https://wiki.test/Foo_(bar))",
    f"{SITE}/any/page?at=all ![]({SITE}/p.png)",
    "Mail me@good.test, <me@good.test> or mailto:me@good.test.",
    "`curl https://other.test/a` and ``a ` https://other.test``",
    "```sh\ncurl https://other.test/a\n![](https://other.test/b)\n```\n",
    "1. Run:\n\n   ```sh\n   curl https://other.test/a\n   ```\n2. Done.",
    "~~~\nhttps://other.test/a\n```\n~~~\n",
    "Note: a < b, x<5, either/or, // comment, 12:30, wow! [sic] how? C:\\dir, $5 & more; a[0] <br> &amp; &nbsp;",
    "[note]: nothing is defined here\n[ ] todo\n[x] done\n[^1]: words of a note",
    "| a | b |\n|---|---|\n| `x` | y<br>z |",
]


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_is_known_or_no_link_stays(text: str) -> None:
    assert guarded([text]) == (text, 0)
    assert guarded(list(text)) == (text, 0)


@pytest.mark.parametrize(
    "url",
    [
        f"{GOOD}?",  # punctuation at the end is nobody's
        "https://good.test/x?q=leak",
        "https://good.test/x/../leak",
        "https://good.test/x%2Fleak",
        "https://good.test/X",
        "https://me@good.test/x",
        "https://good.test:8443/x",
        "https://good.test.evil.test/x",
        "https://good.test\\@evil.test/x",
        "https://docs.test@evil.test/x",
        "https://docs.test\\evil.test/x",
        "https://docs.test:1/x",
        "https://docs.test&#47;evil.test",
        "https://xdocs.test/a",
        "https://docs.test.evil.test/a",
        "http&#58;//docs.test.evil.test/a",
        "javascript://docs.test/%0aalert(1)",
        "data://docs.test/text,x",
        "ftp://good.test/x",
        "//docs.test@evil.test",
        "\\\\docs.test\\a",
    ],
)
def test_tricks_make_another_url(url: str) -> None:
    assert KNOWN.contains(url) == (url == f"{GOOD}?")


def test_a_known_url_does_not_go_on() -> None:
    for more in ('"SECRET', "]SECRET", ")SECRET", "`SECRET", "\\SECRET", "|SECRET", "💩SECRET", "[SECRET", "'SECRET"):
        text, _ = guarded([f"{GOOD}{more}"])
        assert leaks(text) == set(), text
        assert not any("SECRET" in url for url in urls(text))


@pytest.mark.parametrize(
    "text",
    [
        "a ` b\nc ` ![](https://evil.test/1) ` d",
        "| ` | ![](https://evil.test/1) ` |\n|---|---|\n| ` | ![](https://evil.test/1) ` |",
        '<b title="`"> ![](https://evil.test/1) `',
        "<div>\n```\n<img src=https://evil.test/1>\n```\n",
        "[a](<x`y>) ![](https://evil.test/1) `d`",
        f"[a]({GOOD} 't`') ![](https://evil.test/1) `d`",
        " ```\nx\n```\n![](https://evil.test/1)\n```\n",
        "- a\n\n  ```\n  x\n- ![](https://evil.test/1)\n  ```\n",
        "para\n    ```\n    ![](https://evil.test/1)\n",
        "> ```\n> x\n\n![](https://evil.test/1)\n```\n",
        "- ```\n![](https://evil.test/1)\n```\n",
        "```\n    ```\n![](https://evil.test/1)\n",
        "```\n" + "```" + " " * 400 + "x\n```\n![](https://evil.test/1)\n```\n",
        "a ` b\n" + " " * 400 + "x\n`![](https://evil.test/1)`",
        "\\`![](https://evil.test/1)\\`",
        "`\r\r![](https://evil.test/1)`",
        "``` a ` b\n![](https://evil.test/1)\n```\n",
        "<!-- ` -->![](https://evil.test/1)`",
        "<pre>\n\n```\n</pre>\n![](https://evil.test/1)\n```\n",
    ],
)
def test_what_is_code_for_some_only_is_no_code(text: str) -> None:
    assert "https://evil.test/1" not in urls(guarded([text])[0])
    assert leaks(guarded([text])[0]) == set()


def test_some_of_these_are_images_for_a_renderer() -> None:
    assert "https://evil.test/1" in urls("a ` b\nc ` ![](https://evil.test/1) ` d")


FRAGMENTS = [
    *"[]()<>!`\\:/&|$~\"' \n=#*_-w.",
    *("https", "://", "//", "www.", "](", "]:", "![", "[a]", "```", "~~~", "\n\n", "\n```\n", "$$", "- ", "> ", "1. "),
    *("https://evil.test/?q=1", "evil.test", "//evil.test/a", "www.evil.test", "javascript:alert(1)", "data:x,y"),
    *(
        GOOD,
        f"<{GOOD}>",
        f"]({GOOD})",
        f"]: {GOOD}",
        f"[a]({GOOD} 't')",
        "https://docs.test",
        "SECRET",
        "a",
        "x y",
        "    ",
    ),
    *(
        "<img src=",
        "<img",
        " src=",
        "<a href=",
        "<b title=",
        "<div>",
        "</div>",
        "<!--",
        "-->",
        "<pre>",
        "<script>",
        "<br>",
    ),
    *("&#58;", "&colon;", "&#x2f;", "&Tab;", "&lt;", "<javascript:x>", "<https://evil.test>", "mailto:a@evil.test?b=1"),
    *(
        "[a](https://evil.test)",
        "![a](https://evil.test/1)",
        "[a]: https://evil.test",
        "é",
        "💩",
        "。",
        "\t",
        "|---|\n",
    ),
]
texts = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("".join)
places = st.lists(st.integers(0, 400), max_size=6)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(texts, places)
@example("w[ww.evil.test](x)", [])
@example("[q][(x)](y)", [])
@example("<[img src=x](y)>", [])
@example("https://evil:(//x)", [])
@example("www.(//evil.test)", [])
@example("https://💩.test/?q=1", [])
@example("https://evil.(http://x)", [])
@example("https://docs.test//)www.evil.test", [])
@example("https://docs.test/a'//evil.test/a", [])
def test_nothing_unknown_is_rendered_and_cuts_change_nothing(text: str, positions: list[int]) -> None:
    whole = guarded([text])
    assert leaks(whole[0]) == set(), whole[0]
    assert guarded(split_text(text, positions)) == whole
    assert guarded(list(text)) == whole


def test_the_judge_sees_what_the_guard_breaks() -> None:
    dice = random.Random(7)
    samples = ["".join(dice.choices(FRAGMENTS, k=12)) for _ in range(300)]
    assert sum(bool(leaks(text)) for text in samples) > 100
    assert not any(leaks(guarded([text])[0]) for text in samples)


unlinked = st.text(st.characters(exclude_characters="[]<:/&`~$\\\r", exclude_categories=["Cs"]))


@settings(max_examples=300, deadline=None)
@given(unlinked.filter(lambda text: "www" not in text.casefold()), places)
def test_text_without_links_is_unchanged(text: str, positions: list[int]) -> None:
    assert guarded(split_text(text, positions)) == (text, 0)


def test_only_what_may_become_a_link_is_held_back() -> None:
    links: LinkFilter[Mark] = LinkFilter(KNOWN)
    assert list(links.feed("Plain text, and")) == ["Plain text, and"]
    assert list(links.feed(" a [label](htt")) == [" a "]
    assert list(links.feed("ps://evil.test) on")) == ["label (https[://]evil[.]test)", " on"]


@pytest.mark.parametrize("opening", ["[", "![a](", "](", "<a href='", "https://", "[x]: ", "`"])
def test_what_is_held_back_is_bounded(opening: str) -> None:
    links: LinkFilter[Mark] = LinkFilter(KNOWN)
    out = "".join(str(o) for o in links.feed(opening + "a" * 2 * LONGEST))
    assert len(out) >= LONGEST


def test_a_longer_url_is_broken_even_when_it_begins_like_a_known_one() -> None:
    long = f"https://long.test/{'a' * 3_000}"
    links: LinkFilter[Mark] = LinkFilter(KnownUrls([long, long[:LONGEST]]))
    assert "https[://]" in "".join(str(o) for o in [*links.feed(long), *links.close()])


def test_marks_keep_their_place() -> None:
    links: LinkFilter[Mark] = LinkFilter(KNOWN)
    one, two, three = Mark((1,)), Mark((2,)), Mark((3,))
    pieces = ["A [b", one, "](https://evil.test) c https://evil.te", two, "st", three, " d"]
    out = [*(o for piece in pieces for o in links.feed(piece)), *links.close()]
    text = ["b (https[://]evil[.]test)", one, " c https", "[://]evil[.]test", two, three, " d"]
    assert out == ["A ", *text]


ATTACKS = ["](", "![", "<a ", "[a](b(", "`", "` ``", "<a href=", "[x]:", "&#", "]( <a b", "w", "\\"]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_attacks_take_time_in_proportion_to_their_length(attack: str, size: int) -> None:
    text = (attack * 100_000)[:100_000]
    assert guarded([text[i : i + size] for i in range(0, len(text), size)])[0]
