"""Times of `/health`, over one connection and the thinnest client: a socket.

`python -m bench.pings PORT SECONDS PAUSE` prints them as JSON, for measures whose own client is too busy to time them.
"""

import itertools
import json
import socket
import sys
import time
from collections.abc import Iterator

from .process import BenchError

WARM_UP = 20


def pings(port: int, pause: float = 0) -> Iterator[float]:
    """Seconds from `GET /health` to its answer, each `pause` seconds after the one before, without end."""
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in itertools.count():
            start = time.perf_counter()
            sock.sendall(request)
            answer = sock.recv(65536)
            while b"}" not in answer:
                answer += sock.recv(65536)
            took = time.perf_counter() - start
            if not answer.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"/health answered {answer[:200]!r}")
            if i >= WARM_UP:
                yield took
            time.sleep(pause)


def main(port: int, seconds: float, pause: float) -> None:
    end = time.monotonic() + seconds
    print(json.dumps(list(itertools.takewhile(lambda _: time.monotonic() < end, pings(port, pause)))))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
