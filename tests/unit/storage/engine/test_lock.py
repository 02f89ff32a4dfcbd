"""One process a DATA_DIR."""

from pathlib import Path

import pytest

from backend.storage.engine.lock import DataDirInUse, DataDirLock


def test_a_data_dir_is_one_processs_at_a_time(tmp_path: Path) -> None:
    first = DataDirLock(tmp_path / "data")
    with pytest.raises(DataDirInUse, match="DATA_DIR"):
        DataDirLock(tmp_path / "data")
    first.release()
    DataDirLock(tmp_path / "data").release()
