"""What keeps the code in shape, beside the import contracts in pyproject.toml."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 420
HEAVY = ("chromadb", "langchain", "langchain_core", "langchain_openai", "langchain_ollama", "langchain_anthropic",
         "langchain_google_genai", "langchain_cohere", "anthropic", "cohere", "genai_prices", "onnxruntime", "openai",
         "numpy", "pypdfium2", "docx", "lxml", "python_calamine", "alembic", "sqlalchemy", "torch", "prometheus_client",
         "opentelemetry.sdk", "grpc")  # fmt: skip
SOURCES = sorted((ROOT / "backend").rglob("*.py"))


@pytest.mark.slow
def test_import_contracts_hold() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None, "import-linter is not installed"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("Providers don't know each other", "chains/models"),
        ("Formats don't know each other", "chains/reading/formats"),
        ("Dialects don't know each other", "routers/dialects"),
    ],
)
def test_a_contract_of_plugins_names_each_of_them(name: str, package: str) -> None:
    """The linter can't see that a module is missing."""
    paths = [p for p in (ROOT / "backend" / package).glob("*.py") if not p.name.startswith("_")]
    if package != "routers/dialects":
        paths = [p for p in paths if "\nPLUGIN = " in p.read_text(encoding="utf-8")]
    modules = {f"backend.{package}.{p.stem}".replace("/", ".") for p in paths}
    assert modules == set(CONTRACTS[name]["modules"]), f'name them in pyproject.toml: "{name}"'


def test_the_contracts_of_storage_name_each_capability() -> None:
    children = {p.stem for p in (ROOT / "backend" / "storage").iterdir() if not p.name.startswith("_")}
    capabilities = children - {"engine", "migrations", "tables"}
    name = "Queries know Tx and no driver"
    modules = {f"backend.storage.{capability}" for capability in capabilities}
    assert modules == set(CONTRACTS[name]["source_modules"]), f'name them in pyproject.toml: "{name}"'
    rows = {f"The rows of {capability} are read and written by its own service" for capability in capabilities}
    assert rows - CONTRACTS.keys() == set(), "add these contracts to pyproject.toml, like the one of prompts"


def test_the_server_is_imported_without_the_heavy_packages() -> None:
    """/health answers before these are loaded; a second of start is theirs."""
    code = f"import sys, backend.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_opens_anything_when_it_is_imported(path: Path) -> None:
    """No engine, client, connection or app at module level: they are made in main.py and closed there."""
    makers = re.compile(r"(create_engine|create_async_engine|Client|connect|Session|sessionmaker|FastAPI|open)$")
    if path.name == "env.py" and path.parent.name == "migrations":
        return  # Alembic runs this file as a script.
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            function = node.value.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            assert not makers.search(name), f"{path.name}:{node.lineno} makes {name} at import"


def test_torch_is_not_installed() -> None:
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, timeout=60)
    assert done.returncode != 0


def test_the_package_has_one_version() -> None:
    from backend import __version__

    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)
