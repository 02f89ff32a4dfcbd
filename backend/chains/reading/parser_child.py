"""The child process of `Parser`: reads requests from stdin, parses, writes replies to stdout, until stdin ends.

In both directions, a message is its length in four bytes (big endian) and that many bytes of MessagePack.
"""

import os
import queue
import signal
import struct
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from backend.chains.reading.parsed import ParsedDocument
from backend.errors import DocumentUnreadable

LENGTH = struct.Struct(">I")


class ParseRequest(msgspec.Struct, frozen=True):
    """Asks to parse the file at `path` with at most `memory` bytes of address space. `name`: see `Parser.parse`."""

    path: str
    name: str
    memory: int


class ParseReply(msgspec.Struct, frozen=True):
    """The document, or the code and message of a DocumentUnreadable.

    `detail` is a traceback for the log, if the failure was unexpected. `ends_child`: don't use this process again.
    """

    document: ParsedDocument | None = None
    code: str = ""
    message: str = ""
    detail: str = ""
    ends_child: bool = False


def main() -> None:
    """Serve until stdin ends, even in the middle of a file: then the parent doesn't wait for a reply any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us when it has finished
    replies = _own_stdout()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    limited = False
    while True:
        request = msgspec.msgpack.decode(requests.get(), type=ParseRequest)
        if not limited:
            _limit(request.memory)
            limited = True
        reply = msgspec.msgpack.encode(_answer(request))
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


def _own_stdout() -> BinaryIO:
    """The pipe to the parent, under a descriptor that no library prints to; stdout becomes stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _receive(requests: "queue.SimpleQueue[bytes]") -> None:
    source = sys.stdin.buffer
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        requests.put(source.read(LENGTH.unpack(head)[0]))
    os._exit(0)


def _limit(memory: int) -> None:
    """No core dumps (they would contain documents), a memory limit, a lower priority than the server. POSIX only."""
    if sys.platform != "win32":
        import resource

        os.nice(10)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # macOS has no such limit.
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _answer(request: ParseRequest) -> ParseReply:
    from backend.chains.reading.formats import parse_file

    try:
        return ParseReply(document=parse_file(Path(request.path), request.name))
    except DocumentUnreadable as error:
        return ParseReply(code=error.code, message=str(error))
    except MemoryError:
        message = "Reading this file takes too much memory. Split it into parts and try again."
        return ParseReply(code="document_too_large", message=message, ends_child=True)
    except Exception:
        message = "This file could not be read: it is damaged, or of a kind that the reader does not know."
        return ParseReply(
            code="document_corrupt", message=message, detail=traceback.format_exc(limit=-8), ends_child=True
        )


if __name__ == "__main__":
    main()
