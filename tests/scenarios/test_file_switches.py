"""How far a request travels through the code before its first event."""

from pathlib import Path

from tests.support.file_switches import measure


async def test_a_new_message_reaches_its_first_event_with_at_most_22_switches_between_files(tmp_path: Path) -> None:
    counters = await measure(tmp_path / "data")
    counter = counters["new session"]
    assert counter.switches <= 22, "\n".join(counter.way())
