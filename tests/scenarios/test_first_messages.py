"""What people type first, on a server without a language model: sensible answers, and no quotes."""

from pathlib import Path

import pytest

from tests.api.helpers import KEYS
from tests.support.harness import Running, serving

ALICE = {"Authorization": f"Bearer {KEYS.split(',')[0].partition(':')[2]}"}


async def say(server: Running, message: str, headers: dict[str, str] | None = None, **more: object) -> str:
    body = {"message": message, **more}
    answer = await server.client.post("/chat", json=body, headers={"Accept": "text/plain", **(headers or {})})
    assert answer.status_code == 200, answer.text
    return answer.text


async def add(server: Running, *names: str) -> list[str]:
    ids: list[str] = []
    for name in names:
        body = {"name": name, "text": f"# {name}\n\nThe notice period of {name} is 45 days."}
        ids.append((await server.client.post("/documents/text?wait=true", json=body)).json()["id"])
    return ids


async def test_without_documents_it_says_what_to_do(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        assert (await say(server, "hi")).startswith("Hello!")
        assert "You're welcome" in await say(server, "thanks")
        for message in ("What can you do?", "What documents do you have?", "Summarise this"):
            assert "POST /documents/upload" in await say(server, message), message


async def test_with_documents_it_names_them(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        contract, _ = await add(server, "contract.md", "lease.md")
        for message in ("What can you do?", "what documents do you have", "Summarise this, please."):
            answer = await say(server, message)
            assert "- contract.md" in answer and "- lease.md" in answer, answer
            assert "45 days" not in answer
        only = await say(server, "What documents do you have?", documents=[contract])
        assert "- contract.md" in only and "lease.md" not in only
        for message in ("hi", "Thank you!"):
            assert "45 days" not in await say(server, message)
        assert "45 days" in await say(server, "How long is the notice period of contract.md?")


async def test_a_long_list_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        await add(server, *(f"note-{number}.md" for number in range(22)))
        answer = await say(server, "list my documents")
    assert answer.count("- note-") == 20 and "GET /documents" in answer


@pytest.mark.parametrize("message", ["What can you do?", "How long is the notice period?"])
async def test_callers_with_keys_read_no_advice_for_operators(tmp_path: Path, message: str) -> None:
    async with serving(tmp_path / "data", api_keys=KEYS) as server:
        answer = await say(server, message, ALICE)
        assert "no language model" in answer and "OPENAI_API_KEY" not in answer
        assert "OPENAI_API_KEY" not in await say(server, message, ALICE, documents=False)
