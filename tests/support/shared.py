"""Expensive parts of the tests' servers, which are made once and then shared or copied.

A fresh DATA_DIR gets a copy of an empty, migrated database. The servers of one pytest process share the embedding model
and the certificates that HTTP clients trust.
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
"""The cache of all test runs on this machine. The name of a file contains a hash of its sources."""
DATABASE = "streamforge.db"


def prepare(data_dir: Path) -> None:
    """Make a fresh DATA_DIR share the embedding model's graph with the other tests."""
    CACHE.mkdir(exist_ok=True)
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "cache").exists():
        (data_dir / "cache").symlink_to(CACHE)


def prepare_database(data_dir: Path) -> None:
    """Copy an empty database with the newest schema into DATA_DIR, unless it has a database."""
    database = data_dir / DATABASE
    if not database.exists():
        shutil.copyfile(_migrated_database(), database)


@functools.cache
def _migrated_database() -> Path:
    """The file of an empty database with the newest schema, made by the migrations. It is copied, never opened."""
    digest = hashlib.sha256()
    for source in sorted(Path(migrations.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    file = CACHE / f"migrated-{digest.hexdigest()[:12]}.db"
    if not file.exists():
        CACHE.mkdir(exist_ok=True)
        # Several processes may do this at the same time. Their files are equal, and the last one is kept.
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            upgrade(Path(folder) / DATABASE)
            os.replace(Path(folder) / DATABASE, file)
    return file


def share_in_process(patch: pytest.MonkeyPatch) -> None:
    """Make all servers of this process share the embedding model and the trusted certificates."""
    patch.setattr(minilm, "_Model", _shared_models(minilm._Model))
    patch.setattr(ssl, "create_default_context", _shared_certificates(ssl.create_default_context))


def _shared_models(load: Any) -> Any:
    """A function that loads a model once for all servers with the cache `CACHE`. Tests of the loading use other caches,
    for which it loads a model each time.
    """
    shared = functools.cache(lambda threads: load(EmbeddingSettings(cache_dir=CACHE, threads=threads)))

    def open_model(settings: EmbeddingSettings) -> Any:
        return shared(settings.threads) if settings.cache_dir.resolve() == CACHE.resolve() else load(settings)

    return open_model


def _shared_certificates(create: Any) -> Any:
    """A function that reads the default certificates only once. Each HTTP client would read them, and a server has
    several clients.
    """
    trusting = functools.cache(lambda: create(cafile=certifi.where()))

    def create_context(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        is_default = not args and kwargs == {"cafile": certifi.where()}
        return trusting() if is_default else create(*args, **kwargs)

    return create_context
