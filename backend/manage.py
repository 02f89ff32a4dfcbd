"""The command `python -m backend.manage`: backups, and data for another owner."""

import argparse
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from backend.config.groups.accounts import LOCAL, parse_keys
from backend.config.groups.storage import FILES
from backend.config.settings import Settings, SettingsError
from backend.storage.engine.database import update_schema
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from backend.storage.migrations.owners import hand_over


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if it is done, 2 if nothing was changed. `arguments` are those of the process by default."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
        if not settings.storage.database_path.is_file():
            raise SettingsError(f"DATA_DIR: there is no database {settings.storage.database_path}")
        if options.command == "backup":
            return _back_up(settings, options.folder)
        return _hand_over(settings, options.giver, options.to)
    except (SettingsError, DataDirInUse) as error:
        print(f"streamforge: {error}", file=sys.stderr)
    except OSError as error:
        print(f"streamforge: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.manage", description="Work on the data of a server.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    command = commands.add_parser(
        "backup",
        help="copy the database and the files, also while the server runs",
        description="Copy the database and the uploaded files into a new folder, also while the server runs. To "
        "restore, make the copy the DATA_DIR of a stopped server.",
    )
    command.add_argument("folder", type=Path, help="a folder that doesn't exist yet, or is empty")
    command = commands.add_parser(
        "hand-over",
        help="give everything that one owner has to another, while no server runs",
        description="Give all sessions, documents, collections, prompts and usage of one owner to another. Stop the "
        "server first, and make a backup. What has a name that the other one uses already gets a new name.",
    )
    command.add_argument(
        "--from", dest="giver", default=LOCAL, help="who has it now; `local` by default, the owner without API_KEYS"
    )
    command.add_argument("--to", required=True, help="who gets it: a name of API_KEYS")
    return parser


def _back_up(settings: Settings, folder: Path) -> int:
    storage = settings.storage
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty: name a new folder")
    copy = folder / storage.database_path.name
    # The database first: a file that it knows is already there, and one that is added later does no harm.
    with (
        closing(sqlite3.connect(f"{storage.database_path.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    files = storage.data_dir / FILES
    if files.is_dir():
        # A file may be deleted meanwhile; then nothing refers to it any more.
        shutil.copytree(files, folder / FILES, copy_function=_copy_if_there)
    print(f"{folder} has the database ({copy.stat().st_size / 1_000_000:.1f} MB) and the files.")
    return 0


def _copy_if_there(source: str, target: str) -> None:
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def _hand_over(settings: Settings, giver: str, taker: str) -> int:
    callers = sorted(parse_keys(settings.server.api_keys).values()) if settings.server.api_keys else []
    if taker not in (LOCAL, *callers):
        raise SettingsError(f"--to: {taker!r} has no key. API_KEYS has {', '.join(callers) or 'none'}.")
    if taker == giver:
        raise SettingsError("--to: must be another owner than --from")
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
