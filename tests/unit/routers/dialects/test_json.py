"""The JSON answer: positions fit the texts that are given."""

import json
from typing import Any

from backend import events as ev
from backend.routers.dialects.json import ANSWER
from backend.services.runs.fold import RunFold

DOCUMENT = ev.Place(document_id="doc_1", version="ver_1", start=0, end=5)


def citation(part_id: str, start: int, end: int, n: int) -> ev.Citation:
    return ev.Citation(part_id=part_id, source_id=f"s{n}", n=n, start=start, end=end, quote="quote", document=DOCUMENT)


def rendered(*events: ev.AnyEvent) -> dict[str, Any]:
    fold = RunFold()
    for event in (
        ev.RunStarted(run_id="run_1", session_id="ses_1", user_message_id="msg_1", message_id="msg_2", model="m", v=1),
        *events,
        ev.RunCompleted(finish_reason="stop", usage=ev.TokenUsage()),
    ):
        fold.apply(event)
    return json.loads(bytes(ANSWER.render("run_1", fold, {}, None).body))


def test_citations_of_several_parts_fit_the_joined_text_and_their_own_part() -> None:
    answer = rendered(
        ev.ReasoningStart(part_id="p1"),
        ev.ReasoningDelta(part_id="p1", text="Hmm."),
        ev.ReasoningEnd(part_id="p1"),
        ev.TextStart(part_id="p2"),
        ev.TextDelta(part_id="p2", text="🌍 One. Two."),
        citation("p2", 0, 6, 1),
        ev.TextEnd(part_id="p2"),
        ev.TextStart(part_id="p3"),
        ev.TextDelta(part_id="p3", text="Grüße 🌍. Four."),
        citation("p3", 9, 14, 2),
        ev.TextEnd(part_id="p3"),
    )
    text = answer["text"]
    assert text == "🌍 One. Two.\n\nGrüße 🌍. Four."
    assert [text[c["start"] : c["end"]] for c in answer["citations"]] == ["🌍 One.", "Four."]
    assert [(p["type"], p["part_id"]) for p in answer["parts"]] == [("reasoning", "p1"), ("text", "p2"), ("text", "p3")]
    of_parts = [p["text"][c["start"] : c["end"]] for p in answer["parts"] for c in p.get("citations", ())]
    assert of_parts == ["🌍 One.", "Four."]
    assert answer["marked_text"] == "🌍 One. [1] Two.\n\nGrüße 🌍. Four. [2]"


def test_brackets_that_a_model_wrote_stay_and_move_nothing() -> None:
    answer = rendered(
        ev.TextStart(part_id="p1"),
        ev.TextDelta(part_id="p1", text="x = [1]; so it is. Done."),
        citation("p1", 19, 24, 1),
        ev.TextEnd(part_id="p1"),
    )
    (found,) = answer["citations"]
    assert answer["text"] == "x = [1]; so it is. Done."
    assert answer["text"][found["start"] : found["end"]] == "Done."
    assert answer["marked_text"] == "x = [1]; so it is. Done. [1]"
