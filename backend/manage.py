"""The command `python -m backend.manage`: work on the data while no server uses it."""

import argparse
import sys
from collections.abc import Sequence

from backend.config.groups.accounts import LOCAL, parse_keys
from backend.config.settings import Settings, SettingsError
from backend.storage.engine.database import update_schema
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from backend.storage.migrations.owners import hand_over


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if it is done, 2 if nothing was changed. `arguments` are those of the process by default."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
        callers = {LOCAL, *(parse_keys(settings.server.api_keys) if settings.server.api_keys else {}).values()}
        if options.to not in callers:
            raise SettingsError(
                f"--to: {options.to!r} has no key. API_KEYS has {', '.join(sorted(callers - {LOCAL}))}."
            )
        if options.to == options.giver:
            raise SettingsError("--to: must be another owner than --from")
        if not settings.storage.database_path.is_file():
            raise SettingsError(f"DATA_DIR: there is no database {settings.storage.database_path}")
        return _hand_over(settings, options.giver, options.to)
    except (SettingsError, DataDirInUse) as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend.manage", description="Work on the data of a stopped server."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser(
        "hand-over",
        help="give everything that one owner has to another",
        description="Give all sessions, documents, collections, prompts and usage of one owner to another. Stop the "
        "server first, and back up DATA_DIR. What has a name that the other one uses gets a new name.",
    )
    command.add_argument(
        "--from",
        dest="giver",
        default=LOCAL,
        help="who has it now; local by default, the owner of all data while API_KEYS is unset",
    )
    command.add_argument("--to", required=True, help="who gets it: a name of API_KEYS")
    return parser


def _hand_over(settings: Settings, giver: str, taker: str) -> int:
    lock = DataDirLock(settings.storage.data_dir)
    try:
        update_schema(settings.storage.database_path)
        counts = hand_over(settings.storage.database_path, giver, taker)
    finally:
        lock.release()
    for table, count in counts.items():
        print(f"{table}: {count}")
    print(f"{taker} has it now." if counts else f"{giver} has nothing.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
