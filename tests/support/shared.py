"""What costs much to make and is the same for every server of the tests: made once, then shared or copied.

A fresh DATA_DIR gets a copy of a database that is migrated already. The servers of one pytest process share the
embedded model and the list of certificates that HTTP clients trust.
"""

import functools
import hashlib
import os
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any

import certifi
import pytest

from backend.chains.retrieval.embeddings import EmbeddingSettings, minilm
from backend.storage import migrations
from backend.storage.migrations import upgrade

CACHE = Path(tempfile.gettempdir()) / "streamforge-tests-cache"
"""Of all runs of the tests on this machine. Each file's name says what the file was made from."""
DATABASE = "streamforge.db"


def prepare(data_dir: Path) -> None:
    """Let a fresh DATA_DIR share the embedded model's graph with the other tests."""
    CACHE.mkdir(exist_ok=True)
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "cache").exists():
        (data_dir / "cache").symlink_to(CACHE)


def prepare_database(data_dir: Path) -> None:
    """Give a DATA_DIR without a database one of the newest schema."""
    database = data_dir / DATABASE
    if not database.exists():
        shutil.copyfile(_migrated_database(), database)


@functools.cache
def _migrated_database() -> Path:
    """An empty database of the newest schema, for copies. The newest schema is what the migrations say."""
    digest = hashlib.sha256()
    for file in sorted(Path(migrations.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    made = CACHE / f"migrated-{digest.hexdigest()[:12]}.db"
    if not made.exists():
        CACHE.mkdir(exist_ok=True)
        # Several processes may do so at once; the last one's file stays, and it is equal to the others'.
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            upgrade(Path(folder) / DATABASE)
            os.replace(Path(folder) / DATABASE, made)
    return made


def share_in_process(patch: pytest.MonkeyPatch) -> None:
    """Let all servers of this process share the embedded model and the trusted certificates."""
    patch.setattr(minilm, "_Model", _shared_models(minilm._Model))
    patch.setattr(ssl, "create_default_context", _shared_certificates(ssl.create_default_context))


def _shared_models(load: Any) -> Any:
    """Loads a model once for all servers whose cache is `CACHE`; other caches belong to tests of the loading itself."""
    shared = functools.cache(lambda threads: load(EmbeddingSettings(cache_dir=CACHE, threads=threads)))

    def open_model(settings: EmbeddingSettings) -> Any:
        return shared(settings.threads) if settings.cache_dir.resolve() == CACHE.resolve() else load(settings)

    return open_model


def _shared_certificates(create: Any) -> Any:
    """Reads the default certificates once. A client reads them when it is made, and a server makes several clients."""
    trusting = functools.cache(lambda: create(cafile=certifi.where()))

    def create_context(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        is_default = not args and kwargs == {"cafile": certifi.where()}
        return trusting() if is_default else create(*args, **kwargs)

    return create_context
