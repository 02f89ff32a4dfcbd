"""The reader of OpenAI's streams gives the same answer however the bytes are cut."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.models._lines import Lines
from backend.chains.models._openai_chunks import StreamError
from backend.chains.models._openai_reader import StreamReader
from backend.chains.models.prompt import Reasoning, Text
from tests.support.provider_protocol import Send, chunk, done, usage_chunk

TEXT = "Grüße, 世界 🌍! \u2028"
ENDS = [b"\n", b"\r\n", b"\r"]


def read(*pieces: bytes) -> tuple[str, str, StreamReader]:
    """Text, reasoning and the reader, after all of it."""
    reader = StreamReader()
    outputs: list[Any] = [output for piece in pieces for output in reader.feed(piece)]
    outputs += reader.end()
    text = "".join(output.text for output in outputs if isinstance(output, Text))
    return text, "".join(output.text for output in outputs if isinstance(output, Reasoning)), reader


def stream(words: list[str], end: bytes = b"\n") -> bytes:
    steps = [chunk({"reasoning_content": "hm"}), *(chunk({"content": word}) for word in words)]
    sent = [*steps, chunk({}, "stop"), usage_chunk(7, 3), done()]
    return b"".join(step.data for step in sent if isinstance(step, Send)).replace(b"\n", end)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(each, len(data)) for each in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.text(max_size=6), max_size=6),
    st.sampled_from(ENDS),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_the_text_is_the_same_however_the_bytes_fall(words: list[str], end: bytes, at: list[int]) -> None:
    words = [word.replace("\x00", "") for word in words]
    text, reasoning, reader = read(*cut(stream(words, end), at))
    assert (text, reasoning) == ("".join(words), "hm")
    assert (reader.ending.reason, reader.is_done) == ("stop", True)
    assert reader.ending.tokens is not None and reader.ending.tokens.input == 7


@given(st.text(alphabet="a\U0001f600\U0001f30d\u00fc", max_size=8), st.lists(st.integers(0, 40), max_size=6))
def test_text_cut_between_utf16_units_is_whole_again(text: str, at: list[int]) -> None:
    units = [text.encode("utf-16-le")[i : i + 2] for i in range(0, len(text.encode("utf-16-le")), 2)]
    escaped = [rb"\u%04x" % int.from_bytes(unit, "little") for unit in units]
    edges = [0, *sorted(min(each, len(escaped)) for each in at), len(escaped)]
    pieces = [b"".join(escaped[a:b]) for a, b in pairwise(edges)]
    frames = b"".join(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % piece for piece in pieces)
    assert read(frames)[0] == text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([rb"a\ud83d"], "a\ufffd"),
        ([rb"a\ud83d", b"b"], "a\ufffdb"),
        ([rb"\ude00a"], "\ufffda"),
        ([rb"\ud83d", rb"\ud83d", rb"\ude00"], "\ufffd\U0001f600"),
        ([rb"\ud83d", b"", rb"\ude00"], "\U0001f600"),
    ],
)
def test_a_lone_half_is_replaced(pieces: list[bytes], text: str) -> None:
    frames = b"".join(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % piece for piece in pieces)
    assert read(frames)[0] == text


def test_data_in_several_lines_is_one_event() -> None:
    event = b'data: {"choices":\ndata:  [{"delta":\ndata: {"content": "So."}}]}\n\n'
    assert read(event)[0] == "So."
    with pytest.raises(ValueError, match="no JSON"):
        read(b'data: {"choices":\n\n' + event)


@pytest.mark.parametrize(
    ("frames", "status", "said"),
    [
        (b'event: error\ndata: {"message": "no", "code": 429}\n\n', 429, "no"),
        (b'event: error\ndata: {"error": {"message": "no"}}\n\n', None, "no"),
        (b'data: {"object": "error", "message": "no", "code": 400}\n\n', 400, "no"),
        (b'{"detail": "no"}', None, "no"),
        (b"error: no\n\n", None, "no"),
        (b"<html>no</html>", None, "no"),
    ],
)
def test_errors_in_other_dresses(frames: bytes, status: int | None, said: str) -> None:
    with pytest.raises(StreamError) as raised:
        read(frames)
    assert raised.value.status_code == status
    assert said in raised.value.said


def test_what_usage_says_in_other_places() -> None:
    counts = b'{"prompt_tokens":7,"completion_tokens":3}'
    for frame in (
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":%b}]}\n\n',
        b'data: {"choices":[],"x_groq":{"usage":%b}}\n\n',
    ):
        tokens = read(frame % counts)[2].ending.tokens
        assert tokens is not None and (tokens.input, tokens.output) == (7, 3)


def test_zeros_after_the_figures_change_nothing() -> None:
    zeros = b'data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}\n\n'
    tokens = read(stream(["So."]).replace(b"data: [DONE]", zeros + b"data: [DONE]"))[2].ending.tokens
    assert tokens is not None and (tokens.input, tokens.output) == (7, 3)


@given(st.lists(st.sampled_from([b"a", b"", b"bc"]), max_size=8), st.sampled_from(ENDS), st.integers(0, 30))
def test_lines_are_the_same_however_the_bytes_fall(lines: list[bytes], end: bytes, at: int) -> None:
    data = b"".join(line + end for line in lines)
    reader = Lines()
    assert [*reader.feed(data[:at]), *reader.feed(data[at:]), *reader.end()] == lines
