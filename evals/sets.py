"""Sets of documents and questions found in a folder, by their layout; none of them is a part of the project.

chroma    Markdown files; questions_df.csv has questions with exact places (brandonstarxel/chunking_evaluation, MIT)
scifact   corpus_train.csv has abstracts, claims_validation.csv claims with the abstracts that they cite
your own  a folder with questions.csv (docs/evaluation.md) and documents/
"""

import ast
import csv
import io
import json
import random
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .questions import EvalError, Row, Wanted, read_csv

SCIFACT_DOCUMENTS = 1000
_SEED = 0


@dataclass(frozen=True)
class DataSet:
    """Files by name, and questions whose documents are those names."""

    name: str
    files: dict[str, bytes]
    rows: list[Row]

    @property
    def megabytes(self) -> float:
        """Of all files."""
        return sum(map(len, self.files.values())) / 1e6

    @property
    def is_pdf(self) -> bool:
        """Whether it has PDFs alone."""
        return all(name.lower().endswith(".pdf") for name in self.files)


def load(folder: Path, only: list[str] | None = None) -> list[DataSet]:
    """The sets under a folder, by name; `only` some of them. Raises EvalError when there is none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found: list[DataSet] = []
    for name in names:
        loader = next((load for marker, load in _LAYOUTS.items() if (folder / name / marker).is_file()), None)
        if loader is not None and (only is None or name in only):
            found.append(loader(folder / name))
    if not found:
        raise EvalError(
            f"No set was found in {folder}: each one is a folder with questions.csv and documents/ "
            "(docs/evaluation.md). EVAL_DATA or --data names another folder."
        )
    return found


def _chroma(folder: Path) -> DataSet:
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.md"))}
    rows: list[Row] = []
    for line in _csv(folder / "questions_df.csv"):
        name = f"{line['corpus_id']}.md"
        wanted = tuple(Wanted(name, each["content"]) for each in json.loads(line["references"]))
        rows.append(Row(line["question"], wanted))
    return DataSet(folder.name, files, rows)


def _scifact(folder: Path) -> DataSet:
    abstracts = {
        line["doc_id"]: (line["title"], _strings(line["abstract"])) for line in _csv(folder / "corpus_train.csv")
    }
    rows: dict[str, Row] = {}
    for line in _csv(folder / "claims_validation.csv"):
        cited = [number for number in re.findall(r"\d+", line["cited_doc_ids"]) if number in abstracts]
        if not cited:
            continue
        row = rows.get(line["id"], Row(line["claim"], tuple(Wanted(f"{number}.txt") for number in cited)))
        evidence = [
            Wanted(f"{number}.txt", abstracts[number][1][int(at)])
            for number in cited
            if number == line["evidence_doc_id"]
            for at in re.findall(r"\d+", line["evidence_sentences"])
        ]
        rows[line["id"]] = replace(row, evidence=(*row.evidence, *evidence))
    used = {wanted.document.removesuffix(".txt") for row in rows.values() for wanted in row.wanted}
    others = sorted(abstracts.keys() - used)
    random.Random(_SEED).shuffle(others)
    kept = sorted(used) + others[: max(0, SCIFACT_DOCUMENTS - len(used))]
    files = {f"{number}.txt": f"{abstracts[number][0]}\n\n{' '.join(abstracts[number][1])}" for number in kept}
    return DataSet(folder.name, {name: text.encode() for name, text in files.items()}, list(rows.values()))


def _own(folder: Path) -> DataSet:
    paths = sorted(path for path in (folder / "documents").rglob("*") if path.is_file())
    if not paths:
        raise EvalError(f"{folder} has questions.csv and no documents: put them into {folder / 'documents'}.")
    files = {path.name: path.read_bytes() for path in paths}
    if len(files) < len(paths):
        raise EvalError(f"{folder / 'documents'}: two files have the same name; rename one of them.")
    return DataSet(folder.name, files, read_csv(folder / "questions.csv"))


_LAYOUTS: dict[str, Callable[[Path], DataSet]] = {
    "questions_df.csv": _chroma,
    "claims_validation.csv": _scifact,
    "questions.csv": _own,
}
"""By the file that tells a layout."""


def _csv(path: Path) -> "list[dict[str, str]]":
    csv.field_size_limit(10_000_000)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _strings(listed: str) -> list[str]:
    """The strings of a list printed by numpy, which puts no commas between them."""
    tokens = tokenize.generate_tokens(io.StringIO(listed).readline)
    return [str(ast.literal_eval(token.string)).strip() for token in tokens if token.type == tokenize.STRING]
