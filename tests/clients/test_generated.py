"""A client that is generated from /openapi.json compiles under TypeScript's strict rules, and works."""

import json
from pathlib import Path

from tests.clients.readers import NODE, output
from tests.support.harness import ALL_ON, serving

PACKAGES = NODE / "node_modules"
TERMS = "# Terms\n\nThe notice period is 45 days — for both. 🌍 Invoices are due in 30 days.\n"


async def test_a_typescript_client_compiles_and_works(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "generated.ts").write_text((NODE / "generated.ts").read_text())
    async with serving(tmp_path / "data", **ALL_ON) as server:
        (tmp_path / "openapi.json").write_text((await server.client.get("/openapi.json")).text)
        await _compile(tmp_path)
        answer = json.loads(await output("node", "generated.js", server.base, TERMS, cwd=tmp_path))
    assert answer["parts"] == [answer["text"]]
    assert answer["cited"] == ["The notice period is 45 days — for both."]


async def _compile(folder: Path) -> None:
    generator = str(PACKAGES / "openapi-typescript" / "bin" / "cli.js")
    await output("node", generator, "openapi.json", "--output", "api.d.ts", cwd=folder)
    compiler = str(PACKAGES / "typescript" / "bin" / "tsc")
    options = ("--strict", "--target", "ES2022", "--module", "ESNext", "--moduleResolution", "bundler")
    await output("node", compiler, *options, "--lib", "ES2022,DOM", "generated.ts", timeout=60, cwd=folder)
