"""The tree of a session's messages: paths, siblings, leaves."""

from backend.services.conversations.tree import Tree
from backend.storage.conversations.messages import MessageRow


def row(id: str, parent: str | None) -> MessageRow:
    return MessageRow(id, "ses", parent, None, "user", "complete", "[]", None, None, 1)


#  a ─ b ─ c ─ d
#      │   └ e
#      └ f
#  g
ROWS = [row("a", None), row("b", "a"), row("c", "b"), row("d", "c"), row("e", "c"), row("f", "b"), row("g", None)]
TREE = Tree(ROWS, {})


def ids(rows: list[MessageRow]) -> str:
    return "".join(r.id for r in rows)


def test_a_path_leads_from_the_root_to_the_head() -> None:
    assert [ids(TREE.path(head)) for head in ("e", "f", "g", "a", None, "unknown")] == ["abce", "abf", "g", "a", "", ""]


def test_siblings_follow_the_same_message_oldest_first() -> None:
    placed = {p.row.id: p for p in TREE.placed_messages("e", every_branch=True)}
    assert "".join(placed) == "abcdefg"
    assert placed["d"].siblings == placed["e"].siblings == ["d", "e"]
    assert placed["d"].siblings is placed["e"].siblings
    assert placed["f"].siblings == ["c", "f"]
    assert placed["g"].siblings == ["a", "g"]
    assert "".join(i for i, p in placed.items() if p.active) == "abce"
    assert [p.row.id for p in TREE.placed_messages("e", every_branch=False)] == list("abce")


def test_a_leaf_is_the_end_of_the_newest_branch() -> None:
    assert [TREE.leaf(i) for i in "abcdg"] == ["f", "f", "e", "d", "g"]
    assert TREE.leaf("unknown") == "unknown"


def test_the_path_goes_on_where_an_answer_is_still_being_written() -> None:
    tree = Tree([row("a", None), row("q", "unwritten")], {"unwritten": "a"})
    assert ids(tree.path("q")) == "aq"


def test_a_circle_ends() -> None:
    tree = Tree([row("a", "b"), row("b", "a")], {})
    assert ids(tree.path("a")) == "ba"
    assert tree.leaf("a") in "ab"
