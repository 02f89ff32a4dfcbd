"""The invariants. Each function returns when they hold and raises Violation when one doesn't."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.faults.client import TERMINAL, Client, Event, joined, text_of
from tests.faults.servers import Server
from tests.faults.violation import Violation

RECOVERY_GAP = 1_001
"""docs/protocol.md: a recovered run's snapshot stands so far behind the last stored event."""
_SETTLE_SECONDS = 5.0
_DATABASE_CONNECTIONS = 3
"""The writer's and the reader threads'. SQLite keeps the descriptors of closed connections for later ones as long as
others hold locks."""
_STATUS = {"run.completed": "completed", "run.failed": "failed", "run.cancelled": "cancelled"}


def ordered(events: list[Event], run_id: str, after: int = 0) -> None:
    """Ids name the run and the seq; seqs follow each other from `after` on; only a snapshot jumps ahead."""
    last = after
    for event in events:
        if event.id != f"{run_id}:{event.seq}":
            raise Violation("id", f"id {event.id} with seq {event.seq} of {run_id}")
        if event.seq <= last:
            raise Violation("repeated_seq", f"seq {event.seq} ({event.type}) comes after {last} in {run_id}")
        if event.seq != last + 1 and event.type != "snapshot":
            raise Violation("gap", f"seq {event.seq} ({event.type}) comes after {last} in {run_id}")
        last = event.seq


def terminal(events: list[Event]) -> Event:
    """The one and only terminal event, which is the last of all."""
    ends = [e for e in events if e.type in TERMINAL]
    if len(ends) != 1 or events[-1] is not ends[0]:
        raise Violation("terminal", f"{len(ends)} terminal events: {[e.type for e in events][-12:]}")
    return ends[0]


def whole(events: list[Event], run_id: str) -> Event:
    """A stream from its first event to its terminal one, which is returned: gapless, parts in order."""
    ordered(events, run_id)
    end = terminal(events)
    if events[0].type not in ("run.started", "snapshot"):
        raise Violation("order", f"{run_id} begins with {events[0].type}")
    is_open: str | None = None
    for event in events:
        kind, _, step = event.type.partition(".")
        if kind not in ("text", "reasoning"):
            continue
        part = event.data["part_id"]
        if (step == "start") == (is_open is not None) or (step != "start" and part != is_open):
            raise Violation("order", f"{event.type} of {part} while {is_open} is open, in {run_id}")
        is_open = None if step == "end" else part
    if is_open is not None and not any(e.type == "snapshot" for e in events):
        raise Violation("order", f"{is_open} was never ended in {run_id}")
    return end


def same(what: str, found: list[Event], expected: list[Event]) -> None:
    """The same bytes."""
    if (got := joined(found)) != (wanted := joined(expected)):
        at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
        detail = f"{got[max(0, at - 80) : at + 80]!r} instead of {wanted[max(0, at - 80) : at + 80]!r}"
        raise Violation(
            "replay", f"{what}: {len(got)} bytes, {len(wanted)} expected, first difference at {at}: {detail}"
        )


def expect(kind: str, holds: bool, detail: str) -> None:
    """A check of one kind of fault."""
    if not holds:
        raise Violation(kind, detail)


async def kept(client: Client, events: list[Event], message: str) -> None:
    """After the end: the run's status, the stored messages and a replay from the start say what the stream said."""
    started, end = events[0].data, events[-1]
    run_id, session_id = started["run_id"], started["session_id"]
    run = await client.json("GET", f"/runs/{run_id}")
    expect("status", run["status"] == _STATUS[end.type], f"{run_id} is {run['status']} after {end.type}")
    expect("status", run.get("error") == end.data.get("error"), f"{run_id}: {run.get('error')} after {end.data}")
    same("the replay of a finished run", await (await client.watch(run_id)).rest(), events)
    stored = await messages(client, session_id)
    asked = stored.get(started["user_message_id"])
    expect("lost_message", asked is not None and said(asked) == message, f"{message!r} is stored as {asked}")
    answer = stored.get(started["message_id"])
    expect("lost_message", answer is not None, f"the answer of {run_id} is not stored")
    told = text_of(events)
    if answer is not None and said(answer) != told:
        raise Violation("partial", f"{run_id} showed {told!r} and stored {said(answer)!r}")


async def messages(client: Client, session_id: str) -> dict[str, dict[str, Any]]:
    """The stored messages of a session's active path by id, in order."""
    found = await client.json("GET", f"/sessions/{session_id}/messages")
    return {m["id"]: m for m in found["items"]}


def said(message: dict[str, Any]) -> str:
    """The text of a stored message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def settled(server: Server, baseline: dict[str, Any]) -> None:
    """Nothing is held that was not held before: tasks, descriptors, runs, places, connections."""
    deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while True:
        now = await server.census()
        if not (leaked := differences(now, baseline)):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise Violation("leak", "; ".join(leaked))
        await asyncio.sleep(0.02)


def differences(now: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """What `now` holds beyond `baseline`, in words."""
    found: list[str] = []
    for name, value in now.items():
        was = baseline[name]
        if not isinstance(value, dict):
            found += [f"{name}: {value}, was {was}"] if value > was else []
            continue
        for key, count in value.items():
            limit = _DATABASE_CONNECTIONS if key.startswith("streamforge.db") else was.get(key, 0)
            if count > limit:
                found.append(f"{name}: {count} x {key}, was {was.get(key, 0)}")
    return found


def audit(database: Path) -> int:
    """Every log in a database that no server has open: whole, and its run not live. The number of runs."""
    conn = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        expect("database", conn.execute("PRAGMA quick_check").fetchone() == ("ok",), f"{database} is damaged")
        runs = conn.execute("SELECT id, status FROM runs").fetchall()
        for run_id, status in runs:
            expect("stuck", status in ("completed", "failed", "cancelled"), f"{run_id} is {status}")
            rows = conn.execute(
                "SELECT first_seq, last_seq, lines FROM run_events WHERE run_id = ? ORDER BY first_seq", (run_id,)
            ).fetchall()
            end = whole(_stored_events(run_id, rows), run_id)
            expect("status", status == _STATUS[end.type], f"{run_id} is {status}, its log ends with {end.type}")
        orphans = conn.execute(
            "SELECT count(*) FROM runs r WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = r.user_message_id) "
            "OR NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = r.message_id)"
        ).fetchone()[0]
        expect("lost_message", orphans == 0, f"{orphans} runs without their messages in {database}")
        return len(runs)
    finally:
        conn.close()


def _stored_events(run_id: str, rows: list[tuple[int, int, bytes]]) -> list[Event]:
    events: list[Event] = []
    for first, last, lines in rows:
        found = [json.loads(line) for line in lines.split(b"\n")]
        seqs = [e["seq"] for e in found]
        expect("gap", seqs == list(range(first, last + 1)), f"{run_id}: row {first}..{last} holds {seqs}")
        events += [Event(f"{run_id}:{e['seq']}", e, b"", 0.0) for e in found]
    return events
