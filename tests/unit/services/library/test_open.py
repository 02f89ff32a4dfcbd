"""The library opens itself, and registers what must be loaded and what must end."""

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from backend.config.settings import SettingsError
from backend.services.foundation import Core
from backend.services.library.open import check, opened
from backend.services.lifecycle import Draining, Readiness
from backend.services.telemetry.telemetry import SILENT
from backend.storage.engine.database import Database
from tests.support.harness import settings


def free(owner: str) -> AbstractContextManager[None]:
    return nullcontext()


async def test_what_must_be_loaded_and_what_must_end_is_registered(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    core = Core(database, tmp_path, SILENT, Draining(), Readiness())
    loaded = settings(tmp_path)
    try:
        async with opened(loaded.library, loaded.models, core, free) as library:
            assert [load.__name__ for load in core.readiness._loads] == [
                "announce",
                "open",
                "prepare",
                "sweep_all",
                "open",
                "open",
            ]
            assert await library.collections.all("anna") != []
            await core.draining.drain(1.0)
            assert library.board.is_dismissed
        # Nothing was loaded, and closing is fine with that.
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("wrong", "setting"), [({"embedding_model": "minilm/other"}, "EMBEDDING_MODEL"), ({"reranker": "none"}, "RERANKER")]
)
def test_a_model_that_does_not_exist_stops_the_start(wrong: dict[str, str], setting: str, tmp_path: Path) -> None:
    check(settings(tmp_path))
    with pytest.raises(SettingsError, match=f"^{setting}: "):
        check(settings(tmp_path, **wrong))


def test_rerankers_and_fetching_are_not_imported_before_a_setting_turns_them_on() -> None:
    code = (
        "import sys, backend.services.library.open, backend.services.web.open; "
        "print([m for m in sys.modules if 'rerank' in m or m.endswith('web.fetching')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
