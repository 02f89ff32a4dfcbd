"""`python -m tests.faults`: run the schedules, print the figures; exit 1 when a promise was not kept."""

import argparse
import asyncio
import sys

from tests.faults.bugs import BUGS
from tests.faults.driver import Plan, Tally, run
from tests.faults.failpoints import POINTS
from tests.faults.kinds import KINDS
from tests.faults.servers import Zygote

_LONG = 800
"""Faults of each kind in a long run; with the kills and every byte of a provider's answer more than 10,000."""
_KILLS = 2_100


def main() -> int:
    """Read the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same schedules (default: 1)")
    parser.add_argument("--faults", type=int, help=f"so many of each kind (default: {_LONG}, and {_KILLS} kills)")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    parser.add_argument("--schedule", type=int, help="one schedule alone, with --only")
    parser.add_argument("--bug", choices=BUGS, help="plant this bug: the driver must find it")
    parser.add_argument("--lanes", type=int, default=3, help="servers at once (default: 3)")
    args = parser.parse_args()
    if args.schedule is not None and args.only is None:
        parser.error("--schedule needs --only")
    alone = None if args.schedule is None else range(args.schedule, args.schedule + 1)
    plan = Plan(args.seed, _counts(args.only, args.faults), args.lanes, args.bug, alone)
    tally = asyncio.run(_run(plan))
    _print(plan, tally)
    short = _short_of(tally) if args.only is None and args.faults is None else []
    for each in short:
        print(f"TOO FEW {each}")
    return 1 if tally.found or short else 0


async def _run(plan: Plan) -> Tally:
    async with Zygote() as zygote:
        return await run(plan, zygote)


def _short_of(tally: Tally) -> list[str]:
    """What a long run must have had and had not: a driver that injects nothing finds nothing."""
    wanted = {"of all": (tally.faults.total(), 10_000), "kill9": (tally.faults["kill9"], 2_000)}
    wanted |= {name: (tally.faults[name], 500) for name in KINDS if name != "kill9"}
    wanted |= {f"kills at {name}": (tally.points[name], 1) for name in POINTS}
    return [f"{name}: {got}, not {least}" for name, (got, least) in wanted.items() if got < least]


def _counts(only: str | None, faults: int | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, kind in KINDS.items():
        if only in (None, name):
            long = _KILLS if name == "kill9" else max(_LONG, kind.every)
            counts[name] = long if faults is None else faults
    return counts


def _print(plan: Plan, tally: Tally) -> None:
    print(f"{'fault':<18}{'faults':>8}{'schedules':>11}{'violations':>12}")
    for name in plan.faults:
        violations = sum(found.kind == name for found in tally.found)
        print(f"{name:<18}{tally.faults[name]:>8}{tally.schedules[name]:>11}{violations:>12}")
    total = tally.faults.total()
    print(f"{'all':<18}{total:>8}{tally.schedules.total():>11}{len(tally.found):>12}")
    if tally.points:
        print("\nkill -9 at:")
        for name, count in sorted(tally.points.items()):
            print(f"  {name:<22}{count:>6}")
    print(f"\n{tally.seconds:.0f} s, seed {plan.seed}")
    for found in tally.found:
        bug = f" --bug {plan.bug}" if plan.bug else ""
        print(f"\nVIOLATION {found.violation}")
        print(
            f"  again: python -m tests.faults --seed {plan.seed} --only {found.kind} --schedule {found.schedule}{bug}"
        )


if __name__ == "__main__":
    sys.exit(main())
