"""Docs against code: what the code has, the docs name; what they name, it has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from backend import __version__, errors
from backend import events as ev
from backend.chains.models import plugins
from backend.chains.models.prompt import WRITING
from backend.chains.models.provider import EXTRA, Endpoint
from backend.config.settings import GROUPS
from tests.api.routes import endpoints, make_app

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    sections = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert next(name for name in sections if name != "Unreleased") == __version__


# --- settings


def defaults() -> dict[str, Any]:
    """Every setting's variable with its default."""
    found: dict[str, Any] = {}
    for group in GROUPS.values():
        for name, field in group.model_fields.items():
            found[name.upper()] = field.default
    return found


def shown(value: Any) -> str:
    """A default as .env writes it."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case tuple():
            return ",".join(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def assignments(text: str) -> list[tuple[str, str]]:
    """NAME=value lines of an .env file, also those in comments."""
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, re.M)


def test_the_settings_are_found() -> None:
    assert len(defaults()) > 30


def test_env_example_lists_every_setting_once_with_its_default() -> None:
    listed = assignments(read(".env.example"))
    names = [name for name, _ in listed]
    assert sorted(names) == sorted(set(names)), "a setting is listed twice"
    assert dict(listed) == {name: shown(value) for name, value in defaults().items()}


def test_env_example_sets_nothing() -> None:
    """Copied as it is, it changes no default: everything is a comment."""
    active = [line for line in read(".env.example").splitlines() if line.strip() and not line.startswith("#")]
    assert active == []


@pytest.mark.parametrize("name", defaults())
def test_configuration_md_has_the_setting_and_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| ([^|]*) \|", read("docs/configuration.md"), re.M)
    assert row is not None, f"{name} is not in docs/configuration.md"
    default = shown(defaults()[name])
    assert row[1].strip() == (f"`{default}`" if default else "unset")


def test_configuration_md_has_no_setting_that_is_gone() -> None:
    assert set(re.findall(r"^\| `([A-Z0-9_]+)` \|", read("docs/configuration.md"), re.M)) == set(defaults())


def test_every_setting_has_a_description() -> None:
    for group in GROUPS.values():
        assert [name for name, field in group.model_fields.items() if not field.description] == []


# --- error codes


def subclasses(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def written_codes() -> set[str]:
    """What is written as `code="..."`, or as the code of `problem(status, code, ...)`, anywhere in backend/."""
    found: set[str] = set()
    for path in sorted((ROOT / "backend").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            found.update(
                k.value.value
                for k in node.keywords
                if k.arg == "code" and isinstance(k.value, ast.Constant) and isinstance(k.value.value, str)
            )
            if isinstance(node.func, ast.Name) and node.func.id == "problem" and len(node.args) > 1:
                code = node.args[1]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    found.add(code.value)
    return found


def codes() -> set[str]:
    classes = {c.code for c in subclasses(errors.StreamForgeError) if "code" in vars(c)}
    from backend.routers.edge.problems import _HTTP

    return classes | set(errors.DocumentUnreadable.CODES) | written_codes() | {code for code, _ in _HTTP.values()}


def documented() -> set[str]:
    """Codes in the tables of docs/errors.md: the first or second cell of a row."""
    text = read("docs/errors.md")
    return set(re.findall(r"^\| (?:\d{3} \| )?`([a-z_]+)` \|", text, re.M))


def test_the_codes_are_found() -> None:
    assert {"bad_json", "session_busy", "document_scanned", "embedding_mismatch", "internal"} <= codes()


def test_every_status_has_a_title_and_an_example() -> None:
    """Problems show the title, OpenAPI shows the example."""
    from backend.routers.edge.problems import _EXAMPLES, _TITLES

    statuses = {error.status for error in subclasses(errors.StreamForgeError)}
    assert statuses - _TITLES.keys() == set(), "add them to _TITLES in backend/routers/edge/problems.py"
    assert statuses - _EXAMPLES.keys() == set(), "add them to _EXAMPLES in backend/routers/edge/problems.py"


def test_a_status_without_an_example_says_where_to_add_it() -> None:
    from backend.routers.edge.problems import responses

    with pytest.raises(AssertionError, match=r"418.*_EXAMPLES in backend/routers/edge/problems\.py"):
        responses(404, 418)


def test_errors_md_lists_every_code() -> None:
    assert codes() - documented() == set()


def test_errors_md_lists_no_code_that_is_gone() -> None:
    assert documented() - codes() == set()


# --- events


def test_protocol_md_names_every_event() -> None:
    text = read("docs/protocol.md")
    for event in get_args(ev.AnyEvent):
        tag = str(event.__struct_config__.tag)
        head, _, last = tag.partition(".")
        assert f"`{tag}`" in text or re.search(rf"{head}\.\w+[^|\n]*\.{last}\b", text), f"{tag} is missing"


@pytest.mark.parametrize("event", get_args(ev.AnyEvent), ids=lambda e: e.__name__)
def test_protocol_md_names_every_field(event: Any) -> None:
    text = read("docs/protocol.md")
    for field in event.__struct_encode_fields__:
        assert re.search(rf"\b{field}\b", text), f"{field} is missing"


# --- endpoints


def described() -> set[tuple[str, str]]:
    return {(m, p) for m, p in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)", read("docs/api.md"))}


def test_api_md_names_every_endpoint() -> None:
    assert {tuple(e) for e in endpoints(make_app())} - described() - {("GET", "/docs/static")} - SELF == set()


def test_api_md_names_no_endpoint_that_is_gone() -> None:
    assert described() - {tuple(e) for e in endpoints(make_app())} == set()


SELF = {("GET", "/docs"), ("GET", "/openapi.json")}


def test_api_md_names_every_field_of_the_requests() -> None:
    schemas = make_app().openapi()["components"]["schemas"]
    text = read("docs/api.md")
    requests = ("ChatRequest", "SearchRequest", "SessionChange", "TextRequest", "UrlRequest")
    prompts = ("NewPrompt", "LabelChange", "RenderRequest")
    sessions = ("RegenerateRequest", "EditRequest", "HeadChange", "SessionFile")
    for name in (*requests, "DocumentChange", "CollectionName", "EmbedRequest", *prompts, *sessions):
        for field in schemas[name]["properties"]:
            assert re.search(rf"[`\"]{field}[`\"]", text), f"{name}.{field} is missing"


# --- providers


def provider_table() -> str:
    """The rows of docs/models.md: every provider that is called, and what it has a word for."""
    rows: list[str] = []
    for plugin in plugins():
        for kind in plugin.kinds:
            if kind.name in ("extractive", "simulated", "local"):
                continue
            endpoint = Endpoint(kind.name, kind)
            key = f"`{endpoint.key_setting}`" + ("" if kind.key else ", if it needs one")
            fields = ("images", "response_schema", "reasoning_effort", "seed")
            can = " | ".join("no" if field in kind.refuses else "yes" for field in fields)
            package = f"`{plugin.needs[0].replace('_', '-')}`" if plugin.install == EXTRA else ""
            rows.append(
                f"| `{kind.name}` | {key} | {kind.base_url or 'must be set'} | {can} | {package} |".replace("  ", " ")
            )
    return "\n".join(rows)


def test_models_md_lists_every_provider_with_what_it_can() -> None:
    assert provider_table() in read("docs/models.md"), provider_table()


def test_models_md_names_every_parameter() -> None:
    text = read("docs/models.md")
    assert [field for field in WRITING if f"`{field}`" not in text] == []


# --- links


@pytest.mark.parametrize(
    "name", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
)
def test_files_that_the_docs_name_are_there(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists() or (ROOT / target).exists(), target
    for target in re.findall(r"`((?:docs|backend|tests|bench)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


PACKAGES = ("chains", "config", "events", "kit", "routers", "services", "storage")


def short_paths(text: str) -> list[str]:
    """Files and folders of backend/ in backticks, without `backend/`, as `kit/ids.py` or `services/runs/`. Paths with a
    placeholder like `<provider>` are left out.
    """
    return re.findall(rf"`((?:{'|'.join(PACKAGES)})/(?:[\w./-]+\.py|(?:[\w.-]+/)*))`", text)


def test_short_paths_are_recognised() -> None:
    text = "`kit/ids.py`, `services/runs/`, `storage/`, `chains/models/<provider>.py`, `tests/api/`, `events/x y.py`"
    assert short_paths(text) == ["kit/ids.py", "services/runs/", "storage/"]


@pytest.mark.parametrize(
    "name", sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
)
def test_short_paths_that_the_docs_name_are_there(name: str) -> None:
    missing = [path for path in short_paths(read(name)) if not (ROOT / "backend" / path).exists()]
    assert missing == [], f"{name} names files that backend/ doesn't have"
