"""`python -m bench [stream|many|fanout|langchain|ingest|start] [--quick] [--only SERVER ...]`."""

import argparse
import asyncio
import sys

from . import fanout, ingest, langchain, many, start, stream
from .process import BenchError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["all", "stream", "many", "fanout", "langchain", "ingest", "start"], default="all"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: about two minutes, and rougher")
    parser.add_argument("--only", nargs="+", choices=list(stream.TARGETS), default=[], help="servers of `stream`")
    options = parser.parse_args()
    try:
        if options.what in ("all", "stream"):
            asyncio.run(stream.run(options.only, stream.QUICK if options.quick else stream.Sizes()))
        if options.what in ("all", "many"):
            asyncio.run(many.run(many.QUICK if options.quick else many.Sizes()))
        if options.what in ("all", "fanout"):
            asyncio.run(fanout.run(fanout.QUICK if options.quick else fanout.Sizes()))
        if options.what in ("all", "langchain"):
            asyncio.run(langchain.run(langchain.QUICK if options.quick else langchain.Sizes()))
        if options.what in ("all", "ingest"):
            ingest.run(pages=10 if options.quick else 50)
        if options.what in ("all", "start"):
            start.run()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
