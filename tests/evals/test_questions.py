"""Reading questions: what a CSV may hold, and what is said about one that is wrong."""

from pathlib import Path

import pytest

from evals.of_questions import configurations
from evals.questions import EvalError, Question, Row, Wanted, located, read_csv
from evals.sets import load
from evals.spans import Text


def csv_of(folder: Path, text: str) -> Path:
    path = folder / "questions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(EvalError) as caught:
        read_csv(csv_of(folder, text))
    return str(caught.value)


class Shelf:
    """One document, by its file name."""

    prices = Text("A loaf costs\nfour crowns. A cake costs four crowns.")

    def document(self, name: str) -> str:
        if name != "prices.md":
            raise EvalError(f"there is no document {name!r}.")
        return "doc_1"

    def text(self, document: str) -> Text:
        del document
        return self.prices


# --- reading


def test_every_kind_of_line(tmp_path: Path) -> None:
    turns = '[{""role"": ""user"", ""content"": ""Hi""}]'
    rows = read_csv(
        csv_of(
            tmp_path,
            "\ufeffQuestion, document,expected,page,history\n"
            'How much?,prices.md,"four\ncrowns",,\n'
            "Which page?,a.pdf,,3,\n"
            f'And then?,a.pdf,x,1,"{turns}"\n'
            "\n"
            "Whole?,a.pdf\n"
            "Unanswerable?,,,,\n",
        )
    )
    assert rows == [
        Row("How much?", (Wanted("prices.md", "four\ncrowns", line=3),)),
        Row("Which page?", (Wanted("a.pdf", page=3, line=4),)),
        Row("And then?", (Wanted("a.pdf", "x", 1, line=5),), ({"role": "user", "content": "Hi"},)),
        Row("Whole?", (Wanted("a.pdf", line=7),)),
        Row("Unanswerable?"),
    ]


def test_lines_of_the_same_question_are_its_places(tmp_path: Path) -> None:
    rows = read_csv(csv_of(tmp_path, "question,document,expected\nq,a.md,x\nother,a.md,y\nq,b.md,z\n"))
    assert [row.question for row in rows] == ["q", "other"]
    assert [wanted.document for wanted in rows[0].wanted] == ["a.md", "b.md"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the columns are missing"),
        ("a;b\n", "line 1: the columns are a;b"),
        ("question,document,expected\n", "no questions"),
        ("question,document,expected\nq,,x\n", "line 2: `expected` or `page` without `document`"),
        ("question,document,expected\n,a.md,x\n", "line 2: `question` is empty"),
        ("question,document,page\nq,a.md,one\n", "line 2: `page` is 'one'"),
        ("question,document,page\nq,a.md,0\n", "line 2: `page` is '0'"),
        ("question,document,expected\nok,a.md,x\nq,a.md,x,y\n", "line 3: more columns"),
        ("question,document,expected,history\nq,a.md,x,hello\n", "line 2: `history` is no list of turns"),
        ('question,document,expected,history\nq,a.md,x,"[{""role"": ""x""}]"\n', "line 2: `history`"),
        ('question,document,expected\nq,a.md,"say "hi" now"\n', "a quotation mark inside quoted text"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_all_mistakes_come_at_once_ten_of_them_shown(tmp_path: Path) -> None:
    said = refused(tmp_path, "question,document,expected\n" + "q,,x\n" * 25)
    assert said.count("\n  line ") == 10
    assert "and 15 more" in said


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="No such file"):
        read_csv(tmp_path / "none.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes("question,document,expected\nWieviel?,a.md,für\n".encode("latin-1"))
    with pytest.raises(EvalError, match="UTF-8"):
        read_csv(path)


# --- looking up


def test_expected_text_is_found_whatever_its_white_space_at_every_place() -> None:
    rows = [Row("q", (Wanted("prices.md", "costs four crowns."),))]
    (place,) = located(rows, Shelf())[0].places
    text = Shelf.prices.text
    assert [text[start:end] for start, end in place.spans] == ["costs\nfour crowns.", "costs four crowns."]


def test_what_is_not_in_the_documents_is_said_with_its_line() -> None:
    rows = [
        Row("q", (Wanted("prices.md", "five crowns", line=2),)),
        Row("q", (Wanted("none.md", line=3),)),
        Row("fine", (Wanted("prices.md", line=4),)),
    ]
    with pytest.raises(EvalError) as caught:
        located(rows, Shelf())
    assert "line 2: prices.md doesn't hold 'five crowns'" in str(caught.value)
    assert "line 3: there is no document 'none.md'" in str(caught.value)
    assert "line 4" not in str(caught.value)


def test_a_question_without_places_is_unanswerable() -> None:
    assert located([Row("q")], Shelf()) == [Question("q")]


# --- sets


def test_sets_are_told_by_their_files(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    (own / "documents" / "deep").mkdir(parents=True)
    (own / "documents" / "deep" / "a.md").write_text("Bread.")
    csv_of(own, "question,document,expected\nWhat?,a.md,Bread.\n")
    chroma = tmp_path / "chroma"
    chroma.mkdir()
    (chroma / "one.md").write_text("Rye. Oats. Rye.")
    (chroma / "questions_df.csv").write_text('question,references,corpus_id\nGrain?,"[{""content"": ""Rye.""}]",one\n')
    scifact = tmp_path / "scifact"
    scifact.mkdir()
    (scifact / "corpus_train.csv").write_text(
        "doc_id,title,abstract\n7,Bread,\"['It rises.'\n 'Slowly.']\"\n8,Oats,\"['They grow.']\"\n"
    )
    (scifact / "claims_validation.csv").write_text(
        "id,claim,evidence_doc_id,evidence_sentences,cited_doc_ids\n1,Bread rises,7,[1],[7 8]\n2,Nothing,,[],[]\n"
    )
    (tmp_path / "no-set").mkdir()
    found = {each.name: each for each in load(tmp_path)}
    assert set(found) == {"mine", "chroma", "scifact"}
    assert found["mine"].files == {"a.md": b"Bread."}
    assert found["chroma"].rows == [Row("Grain?", (Wanted("one.md", "Rye."),))]
    assert found["scifact"].files["7.txt"] == b"Bread\n\nIt rises. Slowly."
    assert set(found["scifact"].files) == {"7.txt", "8.txt"}
    bread = Row("Bread rises", (Wanted("7.txt"), Wanted("8.txt")), evidence=(Wanted("7.txt", "Slowly."),))
    assert found["scifact"].rows == [bread]
    assert [each.name for each in load(tmp_path, ["mine"])] == ["mine"]


def test_a_folder_without_sets_says_what_to_do(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(EvalError, match="EVAL_DATA"):
            load(folder)


# --- configurations


def test_two_configurations_at_most() -> None:
    assert [each.base for each in configurations(["a", "b"], [], "m/x")] == ["a", "b"]
    bodies = configurations(["a"], ['{"mode": "dense"}', "{}"], "m/x")
    assert [(each.body, each.model) for each in bodies] == [({"mode": "dense"}, None), ({}, None)]
    for bases, compared in ((["a", "b"], ["{}", "{}"]), (["a", "b", "c"], [])):
        with pytest.raises(EvalError, match="Two can be compared"):
            configurations(bases, compared, None)


@pytest.mark.parametrize("body", ["{", "[]", "dense"])
def test_a_search_body_is_a_json_object(body: str) -> None:
    with pytest.raises(EvalError, match="no JSON object"):
        configurations(["a"], [body, "{}"], None)
