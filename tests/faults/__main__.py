"""`python -m tests.faults`: run the schedules, print the figures; exit 1 when a promise was not kept."""

import argparse
import asyncio
import sys

from tests.faults.bugs import BUGS
from tests.faults.driver import Plan, Tally, run
from tests.faults.kinds import KINDS

_LEAST = 500
"""Of each kind in a long run."""


def main() -> int:
    """Read the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same schedules")
    parser.add_argument("--faults", type=int, default=_LEAST, help="least number of each kind")
    parser.add_argument("--kills", type=int, help="least number of kill -9 (default: as --faults)")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    parser.add_argument("--schedule", type=int, help="one schedule alone, with --only")
    parser.add_argument("--bug", choices=BUGS, help="plant this bug: the driver must find it")
    parser.add_argument("--lanes", type=int, default=3, help="servers at once")
    args = parser.parse_args()
    names = [args.only] if args.only else list(KINDS)
    faults = {name: (args.kills or args.faults) if name == "kill9" else args.faults for name in names}
    plan = Plan(args.seed, faults, args.lanes, args.bug, args.schedule)
    tally = asyncio.run(run(plan))
    _print(plan, tally)
    return 1 if tally.found else 0


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
        print(f"  again: python -m tests.faults --seed {plan.seed} --only {found.kind} --schedule {found.schedule}{bug}")


if __name__ == "__main__":
    sys.exit(main())
