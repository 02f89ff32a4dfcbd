"""`python -m bench [stream|many|fanout|langchain|profile|ingest|search|start] [--quick] [--only SERVER ...]`."""

import argparse
import asyncio
import sys
from collections.abc import Callable

from . import bulk, fanout, ingest, langchain, many, profile, search, start, stream
from .process import BenchError

BENCHES: dict[str, Callable[[bool, list[str]], None]] = {
    "stream": lambda quick, only: asyncio.run(stream.run(only, stream.QUICK if quick else stream.Sizes())),
    "many": lambda quick, _: asyncio.run(many.run(many.QUICK if quick else many.Sizes())),
    "fanout": lambda quick, _: asyncio.run(fanout.run(fanout.QUICK if quick else fanout.Sizes())),
    "langchain": lambda quick, _: asyncio.run(langchain.run(langchain.QUICK if quick else langchain.Sizes())),
    "profile": lambda quick, _: asyncio.run(profile.run(profile.QUICK if quick else profile.Sizes())),
    "ingest": lambda quick, _: _ingest(quick),
    "search": lambda quick, _: search.run(search.QUICK if quick else search.Sizes()),
    "start": lambda _, __: start.run(),
}


def _ingest(quick: bool) -> None:
    ingest.run(pages=10 if quick else 50)
    bulk.run(documents=200 if quick else 2000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", *BENCHES], default="all")
    parser.add_argument("--quick", action="store_true", help="small sizes: some minutes, and rougher")
    parser.add_argument("--only", nargs="+", choices=list(stream.TARGETS), default=[], help="servers of `stream`")
    options = parser.parse_args()
    try:
        for name in BENCHES if options.what == "all" else [options.what]:
            BENCHES[name](options.quick, options.only)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
