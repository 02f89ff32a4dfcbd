"""The evaluation from end to end: a set on a server that it starts, and somebody's questions to one that runs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from evals.__main__ import main
from tests.support import samples
from tests.support.harness import Running

BAKERY = "# Bakery\n\nRye bread needs three days to rise.\n\n## Prices\n\nA loaf of rye bread costs four crowns.\n"
HARBOUR = ["The harbour was founded in 1621 by Jonas Berg.", "A pilot through the harbour costs forty crowns a night."]
QUESTIONS = """question,document,expected,page,history
How long does rye bread need to rise?,bakery.md,Rye bread needs  three days to rise.,,
How much does a pilot through the harbour cost?,harbour.pdf,A pilot through the harbour costs forty crowns,,
Who founded the harbour?,harbour.pdf,,1,
And what does a pilot cost?,harbour.pdf,costs forty crowns a night,,"[{""role"": ""user"", ""content"": ""Hello""}]"
How many moons does Jupiter have?,,,,
"""


def files(folder: Path) -> list[Path]:
    note = folder / "bakery.md"
    note.write_text(BAKERY, encoding="utf-8")
    return [note, samples.pdf(folder / "harbour.pdf", HARBOUR)]


def test_a_set_is_measured_beside_the_plain_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sets" / "tiny"
    (folder / "documents").mkdir(parents=True)
    files(folder / "documents")
    (folder / "questions.csv").write_text(QUESTIONS, encoding="utf-8")
    out = tmp_path / "report.json"
    assert main(["--data", str(folder.parent), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    for row in report["search"]["tiny"].values():
        # All of two short documents is in the first five passages.
        assert row["recall@5"] == 1.0
        assert row["page hit@5"] == 1.0
        assert 0 < row["precision@5"] <= 1
        assert row["text MB/min"] > 0
    assert {"default", "plain dense recipe"} <= set(report["search"]["tiny"])
    answers = report["answers"]["tiny"]
    assert answers["citation recall"] == 1.0
    assert answers["rightly declined"] == 1.0
    printed = capsys.readouterr().out
    assert "| tiny, plain dense recipe |" in printed
    assert "| tiny | page hit@5 | 100.0 | 100.0 | 75.0 | met |" in printed


async def uploaded(server: Running, folder: Path) -> Path:
    for path in files(folder):
        assert (await server.upload(path.name, path.read_bytes()))["status"] == "ready"
    path = folder / "questions.csv"
    path.write_text(QUESTIONS, encoding="utf-8")
    return path


async def evaluated(server: Running, path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of the command, run beside the server's event loop."""
    out = path.with_suffix(".json")
    arguments = [str(path), "--base", server.base, "--out", str(out), *options]
    code = await asyncio.to_thread(main, arguments)
    return code, json.loads(out.read_text()) if out.exists() else {}


async def test_own_questions_are_searched_and_asked(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = await evaluated(server, await uploaded(server, tmp_path))
    assert code == 0
    figures = report["figures"]
    assert figures["recall@5"] == 1.0
    assert figures["follow-up recall@5"] == 1.0
    assert figures["citation precision"] == 1.0
    assert figures["rightly declined"] == 1.0
    assert figures["wrongly declined"] == 0.0
    assert "| recall@5 | 100.0 |" in capsys.readouterr().out


async def test_two_search_bodies_are_compared(server: Running, tmp_path: Path) -> None:
    path = await uploaded(server, tmp_path)
    ids = {each["filename"]: each["id"] for each in (await server.client.get("/documents")).json()["items"]}
    only = json.dumps({"documents": [ids["bakery.md"]]})
    code, report = await evaluated(server, path, "--compare", "{}", only)
    assert code == 0
    gap = report["differences"]["recall@5"]
    # One of four answerable questions is about the bakery.
    assert (gap["first"], gap["second"], gap["questions"]) == (1.0, 0.25, 4)
    assert gap["low"] <= -0.75 <= gap["high"]


async def test_what_cannot_be_measured_is_said(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await uploaded(server, tmp_path)
    code, _ = await evaluated(server, path, "--compare", '{"modus": 1}', "{}")
    assert code == 1
    assert "POST /search was answered 422" in capsys.readouterr().err
    path.write_text("question,document,expected\nWhere?,bakery.md,at the corner\n")
    code, _ = await evaluated(server, path)
    assert code == 1
    assert "line 2: bakery.md doesn't hold 'at the corner'" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("question,document,expected\nWhere?,bakery.md,at the corner\n")
    assert main([str(path), "--base", "http://127.0.0.1:9"]) == 1
    assert "Nobody answers at http://127.0.0.1:9" in capsys.readouterr().err
