"""The code of the documents does what they say: it reads an answer, and comes back when the connection is cut."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import ANSWER
from tests.clients.docs import ROOT, pointed_at, snippet
from tests.clients.readers import NODE, output
from tests.clients.relay import cutting
from tests.scenarios.support import ask, only_terminal
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import error
from tests.support.provider_server import ProviderServer

PAGE = "docs/clients.md"
STATE = """
const state = { answer: "" };
const setter = (name) => (value) => (state[name] = typeof value === "function" ? value(state[name]) : value);
const [setSession, setAnswer, setCitations, setError] = ["session", "answer", "citations", "error"].map(setter);
const [message, session_id] = ["How long is the notice period?", undefined];
const useEffect = (effect) => effect();
process.on("exit", () => console.log(JSON.stringify(state)));
"""
"""What a React component has around the snippets that set its state."""


async def javascript(folder: Path, module: str, main: str) -> Any:
    """The JSON that `main` writes; it may import the module `./snippet.mjs` and what a browser has."""
    folder.mkdir()
    (folder / "node_modules").symlink_to(NODE / "node_modules")
    (folder / "snippet.mjs").write_text(module)
    (folder / "main.mjs").write_text(main)
    return json.loads(await output("node", "--import", str(NODE / "browser.mjs"), str(folder / "main.mjs")))


async def python(code: str) -> str:
    return await output(sys.executable, "-c", code)


# --- curl


async def test_curl(beating: Running) -> None:
    wire = await output("bash", "-c", pointed_at(snippet(PAGE, "curl", "sh"), beating.base))
    events = [json.loads(line.removeprefix("data: ")) for line in wire.splitlines() if line.startswith("data: ")]
    only_terminal(events)
    assert text_of(events) == ANSWER
    again = pointed_at(snippet(PAGE, "curl", "sh", 1), beating.base)
    assert await output("bash", "-c", again, RUN=events[0]["run_id"]) in wire.replace(": hb\n", "")


# --- JavaScript


CUTS = {
    "before the empty line": 1,
    "in the id": 10,
    "before the id": len(":12") + 32 + len("id: run_") + 2,
    "in the data": 60,
}
"""Where a connection is cut: how many bytes before the end of an event."""


@pytest.mark.parametrize("short", CUTS.values(), ids=CUTS.keys())
async def test_readme_hook_comes_back_and_begins_anew_for_each_question(
    beating: Running, tmp_path: Path, short: int
) -> None:
    """In React's StrictMode, which calls what a component has twice. It asks two questions, one after the other."""
    module = snippet("README.md", "In a React app", "jsx") + snippet("README.md", "In a React app", "js")
    async with cutting(beating.base, short=short) as relay:
        shown = await javascript(tmp_path / "js", pointed_at(module, relay.base), (NODE / "hook.mjs").read_text())
    assert relay.cut == 2
    assert [(answer["text"], answer["error"], answer["done"]) for answer in shown] == [(ANSWER, None, True)] * 2
    assert shown[0]["session"] == shown[1]["session"] and shown[0]["session"].startswith("ses_")


@pytest.mark.parametrize(("cuts", "short"), [(0, 0), *((2, short) for short in CUTS.values())])
async def test_fetch_event_source_in_react(
    beating: Running, provider: ProviderServer, tmp_path: Path, cuts: int, short: int
) -> None:
    module = snippet(PAGE, "JavaScript: fetch", "js")
    component = snippet(PAGE, "JavaScript: fetch", "jsx")
    async with cutting(beating.base, cuts, short) as relay:
        main = f'import {{ ask }} from "./snippet.mjs";{STATE}{component}'
        state = await javascript(tmp_path / "js", pointed_at(module, relay.base), main)
    assert relay.cut == cuts
    assert state == {"answer": ANSWER}
    assert len(provider.calls) == 1, "it asked twice"


@pytest.mark.parametrize(("where", "short"), CUTS.items(), ids=CUTS.keys())
async def test_fetch_event_source_without_our_cursor(beating: Running, tmp_path: Path, where: str, short: int) -> None:
    """Why `data` is sent before `id`: the library takes an id as soon as its line arrives. The snippet keeps its own
    cursor for the one place that is left.
    """
    module = re.sub(r"^    fetch: .*\n", "", snippet(PAGE, "JavaScript: fetch", "js"), flags=re.M)
    component = snippet(PAGE, "JavaScript: fetch", "jsx")
    async with cutting(beating.base, short=short) as relay:
        main = f'import {{ ask }} from "./snippet.mjs";{STATE}{component}'
        state = await javascript(tmp_path / "js", pointed_at(module, relay.base), main)
    assert relay.cut == 2
    assert (state["answer"] == ANSWER) == (where != "before the empty line")


async def test_fetch_event_source_tells_why_it_was_refused(beating: Running, tmp_path: Path) -> None:
    module = pointed_at(snippet(PAGE, "JavaScript: fetch", "js"), beating.base)
    main = (
        f'import {{ ask }} from "./snippet.mjs";{STATE} await ask({{}}, () => {{}}).catch((e) => setError(e.message));'
    )
    assert "message" in (await javascript(tmp_path / "js", module, main))["error"]


async def test_fetch_event_source_while_the_page_is_hidden(
    beating: Running, provider: ProviderServer, tmp_path: Path
) -> None:
    module = pointed_at(snippet(PAGE, "JavaScript: fetch", "js"), beating.base)
    main = """
        import { ask } from "./snippet.mjs";
        const events = [];
        const become = (hidden) => {
          events.push({ hidden });
          document.hidden = hidden;
          document.dispatchEvent(new Event("visibilitychange"));
        };
        await ask({ message: "Hello?", documents: false }, (event) => {
          events.push(event);
          if (event.text !== "Real") return;
          setTimeout(become, 100, true);
          setTimeout(become, 1300, false);
        });
        console.log(JSON.stringify(events));
    """
    events = await javascript(tmp_path / "js", module, main)
    hidden = events.index({"hidden": True})
    assert events[hidden + 1] == {"hidden": False}
    read = [event for event in events if "hidden" not in event]
    only_terminal(read)
    assert text_of(read) == ANSWER
    assert len(provider.calls) == 1


async def test_eventsource_comes_back(beating: Running, tmp_path: Path) -> None:
    module = snippet(PAGE, "JavaScript: EventSource", "js")
    async with beating.client.stream("POST", "/chat", json=ask()) as response:
        run_id = response.headers["content-location"].removeprefix("/runs/")
    async with cutting(beating.base) as relay:
        main = f"""
            import {{ watch }} from "./snippet.mjs";
            const events = [];
            const source = watch("{run_id}", (event) => events.push(event));
            const awake = setInterval(() => source.readyState === EventSource.CLOSED && clearInterval(awake), 50);
            process.on("exit", () => console.log(JSON.stringify(events)));
        """
        events = await javascript(tmp_path / "js", pointed_at(module, relay.base), main)
    assert relay.cut == 2
    only_terminal(events)
    assert text_of(events) == ANSWER


# --- Python


async def test_httpx_sse_comes_back(beating: Running, provider: ProviderServer) -> None:
    async with cutting(beating.base) as relay:
        assert await python(pointed_at(snippet(PAGE, "Python: httpx-sse", "python"), relay.base)) == ANSWER
    assert relay.cut == 2
    assert len(provider.calls) == 1


async def test_openai(beating: Running) -> None:
    assert await python(pointed_at(snippet(PAGE, "Python: openai", "python"), beating.base)) == ANSWER


async def test_openai_raises_a_failed_run(beating: Running, provider: ProviderServer) -> None:
    provider.script([error(401, "Incorrect API key provided", "invalid_request_error", "invalid_api_key")])
    code = pointed_at(snippet(PAGE, "Python: openai", "python"), beating.base)
    caught = "\n".join(f"    {line}" for line in code.splitlines())
    said = await python(
        f"import openai\ntry:\n{caught}\nexcept openai.APIError as error:\n    print(type(error).__name__, error)"
    )
    assert said.startswith("APIError ")


# --- The quick start of the README


async def test_the_quick_start_can_be_done_as_printed(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in readme.splitlines() if line.startswith("    curl ")][:3]
    async with serving(tmp_path / "data") as server:
        uploaded, stream, text = [
            await output(
                "bash", "-c", f"cd {ROOT} && {pointed_at(command, server.base).replace('curl', 'curl -sS', 1)}"
            )
            for command in commands
        ]
    assert json.loads(uploaded)["status"] == "ready"
    printed = re.findall(r'"text":"(.*?)"\}', " ".join(readme.split("\n           ")))[0]
    assert f'"text":"{printed}"' in stream, "the README shows what really comes"
    assert '"page":2,"start":1555,"end":1664' in stream
    assert text.startswith(f"{printed} [1]")
