"""An address can be guessed: what docs/architecture.md says of packages, names and tests is checked here."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from backend.routers import ROUTERS, RouterModule, modules_of
from tests.support.harness import ALL_ON, ROOT, settings

BACKEND = ROOT / "backend"
MAX_MODULES = 10
PLUGINS = {"formats", "embeddings", "rerankers", "models", "versions"}
"""Folders that hold one file a plugin, or one a migration; in `chains` and `storage` alone."""
URLS_OF_OTHERS = {"system": ("/", "/health", "/ready"), "search": ("/search", "/messages")}
"""Modules whose URLs don't begin with the module's name."""
SERVICES = sorted(p for p in (BACKEND / "services").iterdir() if p.is_dir() and p.name != "__pycache__")
PACKAGES = sorted(
    p.parent for layer in ("services", "storage", "chains") for p in (BACKEND / layer).rglob("__init__.py")
)
UNIT_TESTS = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))


def path_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES, ids=path_of)
def test_a_package_is_small_enough_to_be_seen_at_once(package: Path) -> None:
    modules = [p for p in package.glob("*.py") if p.name != "__init__.py"]
    is_plugins = package.name in PLUGINS and "services" not in package.parts
    assert is_plugins or len(modules) <= MAX_MODULES, [p.name for p in modules]


def test_a_class_name_means_one_thing() -> None:
    """The API's schemas in routers/ are excepted: their names belong to the callers."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in BACKEND.rglob("*.py"):
        if "routers" in path.parts or "versions" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path_of(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", UNIT_TESTS, ids=path_of)
def test_a_unit_test_is_where_its_module_is(path: Path) -> None:
    """`tests/unit/a/test_b.py` or `test_b_aspect.py` tests `backend/a/b.py`, or the package `backend/a/b`."""
    folder = BACKEND / path.parent.relative_to(ROOT / "tests" / "unit")
    names = {p.stem.removeprefix("_") for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()}
    words = path.stem.removeprefix("test_").split("_")
    assert any("_".join(words[:count]) in names for count in range(1, len(words) + 1)), sorted(names)


def test_every_module_of_endpoints_is_in_routers() -> None:
    listed = {f"{entry.name.replace('.', '/')}.py" for entry in ROUTERS}
    folder = BACKEND / "routers"
    having = {
        p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if "\nrouter = APIRouter(" in p.read_text()
    }
    assert listed == having


@pytest.mark.parametrize("entry", ROUTERS, ids=lambda entry: entry.name)
def test_the_first_segment_of_a_url_names_its_module(entry: RouterModule, tmp_path: Path) -> None:
    modules = {module.__name__: module for module in modules_of(settings(tmp_path, **ALL_ON))}
    module = modules.get(f"backend.routers.{entry.name}")
    assert module is not None, (
        "this router is off by default: add the setting that turns it on to ALL_ON in tests/support/harness.py"
    )
    name = entry.name.partition(".")[0]
    begins = URLS_OF_OTHERS.get(name, (f"/{name}",))
    for route in module.router.routes:
        assert any(route.path == begin or route.path.startswith(f"{begin}/") for begin in begins), route.path


def test_a_capability_that_services_have_is_named_alike_in_the_settings() -> None:
    """A group of settings has the name of its package in services/, or of a part of the server itself."""
    of_the_server = {"server", "storage", "logs", "accounts", "network"}
    groups = {p.stem for p in (BACKEND / "config" / "groups").glob("*.py")} - {"__init__"}
    assert groups - of_the_server <= {p.name for p in SERVICES}
