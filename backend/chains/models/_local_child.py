"""The child process of `LocalServer`: serves a GGUF file by llama.cpp on the loopback, until stdin ends.

It is run as a file, so that nothing of the server is imported. Its first line of stdin is its order, the only line of
stdout its reply; both are JSON.
"""

import importlib
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any


def main() -> None:
    """Serve until stdin ends: the server that started this process holds its other end, also when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    _limit(order["memory"])
    try:
        server = _serve(order)
    except Exception as error:
        print(json.dumps({"error": str(error) or type(error).__name__}), file=replies, flush=True)
        os._exit(1)
    print(json.dumps({"url": server.listening_address}), file=replies, flush=True)
    threading.Event().wait()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _limit(memory: int) -> None:
    """No core dumps (they would contain prompts), a memory limit, a lower priority than the server. POSIX only."""
    if sys.platform != "win32":
        import resource

        os.nice(5)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # macOS has no such limit.
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _serve(order: dict[str, Any]) -> Any:
    # A binary package, whose names no type checker sees.
    llama: Any = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = order["path"]
    params.model_alias = {order["name"]}
    params.n_ctx = order["context"] * order["slots"]
    params.n_parallel = order["slots"]
    # Answers of one slot leave the others' memory alone; prompts of earlier answers are kept in the slot only.
    params.cache_ram_mib = 0
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = order["threads"]
        # Threads that wait don't keep a core busy.
        cpu.poll = 0
    params.n_threads_http = order["slots"] + 2
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order["key"]]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False
    return llama.Server(params)


if __name__ == "__main__":
    main()
