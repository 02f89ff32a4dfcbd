"""Times of `/health`, over one connection and the thinnest client: a socket.

`python -m bench.pings PORT COUNT PAUSE` prints them as JSON, for measures whose own client is too busy to time them.
"""

import json
import socket
import sys
import time

from .process import BenchError

WARM_UP = 20


def pings(port: int, count: int, pause: float = 0) -> list[float]:
    """Seconds from `GET /health` to its answer, `pause` seconds after the one before."""
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(count + WARM_UP):
            start = time.perf_counter()
            sock.sendall(request)
            answer = sock.recv(65536)
            while b"}" not in answer:
                answer += sock.recv(65536)
            if i >= WARM_UP:
                times.append(time.perf_counter() - start)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"/health answered {answer[:200]!r}")
            time.sleep(pause)
    return times


if __name__ == "__main__":
    print(json.dumps(pings(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
