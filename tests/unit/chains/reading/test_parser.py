"""The child process: what it survives, and that it never takes the next file with it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.chains.reading.parser import Parser
from backend.errors import DocumentUnreadable
from tests.support import samples

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")


@pytest.fixture
async def parser() -> AsyncIterator[Parser]:
    parser = Parser(workers=1)
    yield parser
    await parser.aclose()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return samples.pdf(tmp_path / "page.pdf", [samples.PARAGRAPH], title="Harbour")


def pid(parser: Parser) -> int:
    process = parser._children[0].process
    assert process is not None
    return process.pid


async def reason(parser: Parser, path: Path) -> str:
    with pytest.raises(DocumentUnreadable) as caught:
        await parser.parse(path, path.name)
    return caught.value.code


async def test_parses_by_content_in_one_child(parser: Parser, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page.parent)
    parsed = await parser.parse(Path(page.name), "letter.txt")
    assert parsed.media_type == "application/pdf" and parsed.title == "Harbour"
    assert parsed.text == samples.PARAGRAPH and parsed.page_at(0) == 1
    first = pid(parser)
    assert await reason(parser, samples.plain_zip(page.parent / "a.zip")) == "document_unsupported"
    assert first == pid(parser)


async def test_calls_queue(parser: Parser, page: Path) -> None:
    found = await asyncio.gather(*(parser.parse(page, "a") for _ in range(5)))
    assert len({parsed.text for parsed in found}) == 1


@posix
async def test_a_file_that_hangs_holds_up_no_other(page: Path) -> None:
    parser = Parser(workers=2, timeout=60)
    stuck = await parser._children[1].start()
    os.kill(stuck.pid, signal.SIGSTOP)
    hanging = asyncio.create_task(parser.parse(page, "a"))
    await asyncio.sleep(0)
    found = [await parser.parse(page, "a") for _ in range(3)]
    assert [parsed.title for parsed in found] == ["Harbour"] * 3 and not hanging.done()
    os.kill(stuck.pid, signal.SIGCONT)
    assert (await hanging).title == "Harbour"
    await parser.aclose()


async def test_calls_come_in_their_order(parser: Parser, page: Path) -> None:
    done: list[int] = []

    async def read(number: int) -> None:
        await parser.parse(page, "a")
        done.append(number)

    await asyncio.gather(*map(read, range(6)))
    assert done == list(range(6))


async def test_is_recycled(page: Path) -> None:
    parser = Parser(workers=1, recycle=2)
    await parser.parse(page, "a")
    first = pid(parser)
    await parser.parse(page, "a")
    await parser.parse(page, "a")
    assert pid(parser) != first
    await parser.aclose()


@posix
async def test_a_child_that_dies_costs_its_file_only(parser: Parser, page: Path) -> None:
    await parser.parse(page, "a")
    os.kill(pid(parser), signal.SIGSTOP)
    task = asyncio.create_task(reason(parser, page))
    await asyncio.sleep(0.05)
    os.kill(pid(parser), signal.SIGSEGV)
    os.kill(pid(parser), signal.SIGCONT)
    assert await task == "document_corrupt"
    assert (await parser.parse(page, "a")).title == "Harbour"


@posix
async def test_time_is_limited(page: Path) -> None:
    parser = Parser(workers=1, timeout=0.3)
    child = await parser._children[0].start()
    os.kill(child.pid, signal.SIGSTOP)
    assert await reason(parser, page) == "document_timeout"
    assert child.returncode is not None
    parser._children[0]._timeout = 30
    assert (await parser.parse(page, "a")).title == "Harbour"
    await parser.aclose()


@posix
async def test_memory_is_limited(tmp_path: Path, page: Path) -> None:
    parser = Parser(memory=600 * 1024**2)
    big = tmp_path / "big.txt"
    with big.open("wb") as file:
        file.truncate(900 * 1024**2)
        file.write(b"plain text " * 6000)
    assert await reason(parser, big) == "document_too_large"
    assert (await parser.parse(page, "a")).title == "Harbour"
    await parser.aclose()


@posix
async def test_a_cancelled_call_leaves_no_answer_behind(parser: Parser, page: Path, tmp_path: Path) -> None:
    await parser.parse(page, "a")
    os.kill(pid(parser), signal.SIGSTOP)
    task = asyncio.create_task(parser.parse(page, "a"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other = samples.text(tmp_path / "other.txt", "Something else.")
    assert (await parser.parse(other, "other.txt")).text == "Something else."


@posix
async def test_the_child_has_no_keys_little_priority_and_ends_with_us(
    parser: Parser, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    await parser.parse(page, "a")
    child = parser._children[0].process
    assert child is not None and child.stdin is not None
    assert os.getpriority(os.PRIO_PROCESS, child.pid) >= 10
    environment = Path(f"/proc/{child.pid}/environ")
    if environment.exists():
        assert b"sk-very-secret" not in environment.read_bytes()
    child.stdin.close()  # what the system does for a parent that dies
    assert await asyncio.wait_for(child.wait(), 5) == 0


async def test_an_idle_child_is_let_go(page: Path) -> None:
    parser = Parser(workers=1, idle=0.05)
    await parser.parse(page, "a")
    child = parser._children[0].process
    assert child is not None
    await asyncio.wait_for(child.wait(), 5)
    assert parser._children[0].process is None
    assert (await parser.parse(page, "a")).title == "Harbour"
    await parser.aclose()


async def test_closing_does_not_blame_the_file(page: Path) -> None:
    parser = Parser()
    task = asyncio.create_task(parser.parse(page, "a"))
    await asyncio.sleep(0.05)
    await parser.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await task
    with pytest.raises(RuntimeError, match="closed"):
        await parser.parse(page, "a")


async def test_a_file_that_is_not_there(parser: Parser, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await parser.parse(tmp_path / "nothing", "a")


async def test_a_large_text_comes_through(parser: Parser, tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.txt", "word " * 1_000_000)
    assert len((await parser.parse(path, "a.txt")).text) == 5_000_000
    assert await reason(parser, samples.text(tmp_path / "b.txt", "word " * 4_000_001)) == "document_too_large"
