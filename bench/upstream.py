"""A mock OpenAI-compatible provider that puts the time of sending into each token.

The model's name says what is sent: `bench-flat-2000`, 2000 tokens as quick as the socket takes them;
`bench-rate10-100`, 100 tokens, ten a second; `bench-late60-flat-1`, the first token 60 ms after the request. A token
is `<00012345.123456> `, seconds of the system-wide monotonic clock, so a reader on the same machine can tell the
delay of each token, also where tokens were joined on the way.

It runs on asyncio's own loop, whose transports send at once: one write, one send, one token. (uvloop would
gather the writes of one turn of the loop.)
"""

import asyncio
import itertools
import json
import re
import sys
import time
from dataclasses import dataclass

MODEL = re.compile(r"bench-(?:late(\d+)-)?(?:flat|rate([\d.]+))-(\d+)$")
TOKEN = "<%015.6f> "
TOKEN_LENGTH = len(TOKEN % 0.0)
FAIR_SHARE = 16  # tokens a stream writes before the other streams get their turn
GOLDEN_RATIO = 0.618033988749895  # spreads the phases of paced streams evenly, however many there are

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = 'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1735689600,"model":"bench",'
FRAME = (
    CHUNK + '"service_tier":"default","system_fingerprint":"fp_bench","choices":[{"index":0,"delta":%s,'
    '"logprobs":null,"finish_reason":%s}]}\n\n'
)
USAGE = CHUNK + '"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'


@dataclass(frozen=True)
class Plan:
    """The answer to a request: `count` tokens, `rate` per second (0: flat out), the first after `late` seconds."""

    count: int
    rate: float = 0
    late: float = 0

    @classmethod
    def of(cls, model: str) -> "Plan":
        match = MODEL.search(model)
        if match is None:
            raise ValueError(f"no bench model: {model}")
        return cls(count=int(match[3]), rate=float(match[2] or 0), late=int(match[1] or 0) / 1000)


def in_chunk(data: str) -> bytes:
    """The text as one chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data.encode())


ROLE = in_chunk(FRAME % ('{"role":"assistant","content":"","refusal":null}', "null"))
STOP = in_chunk(FRAME % ("{}", '"stop"'))
END = in_chunk("data: [DONE]\n\n") + b"0\r\n\r\n"
# All frames of tokens have the same length, so only the time is replaced.
BEFORE, AFTER = in_chunk(FRAME % (f'{{"content":"{"T" * TOKEN_LENGTH}"}}', "null")).split(b"T" * TOKEN_LENGTH)

phases = itertools.count()


def token() -> bytes:
    return BEFORE + (TOKEN % time.monotonic()).encode() + AFTER


async def send_flat(plan: Plan, writer: asyncio.StreamWriter) -> None:
    for begin in range(0, plan.count, FAIR_SHARE):
        for _ in range(min(FAIR_SHARE, plan.count - begin)):
            writer.write(token())
        await writer.drain()
        await asyncio.sleep(0)


async def send_paced(plan: Plan, writer: asyncio.StreamWriter) -> None:
    start = time.monotonic() + (next(phases) * GOLDEN_RATIO % 1) / plan.rate
    for i in range(plan.count):
        await asyncio.sleep(start + i / plan.rate - time.monotonic())
        writer.write(token())
        await writer.drain()


async def stream(plan: Plan, with_usage: bool, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + ROLE)
    await asyncio.sleep(plan.late)
    await (send_paced if plan.rate else send_flat)(plan, writer)
    usage = in_chunk(USAGE % (plan.count, plan.count + 9)) if with_usage else b""
    writer.write(STOP + usage + END)


async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith(b"POST") and b"/chat/completions" in head.split(b"\r\n", 1)[0]:
                request = json.loads(body)
                with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
                await stream(Plan.of(request["model"]), with_usage, writer)
            else:
                models = b'{"object":"list","data":[]}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
                writer.write(b"%d\r\n\r\n%b" % (len(models), models))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(connection, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
