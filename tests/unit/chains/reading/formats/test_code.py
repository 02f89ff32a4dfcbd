"""Source code: cut by definitions, and kept as it is."""

import ast
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.chains.reading.formats import parse_file
from backend.chains.reading.parsed import ParsedDocument
from backend.chains.retrieval.chunking import chunk
from tests.support import samples

SOURCES = {
    "a.ts": """
/** Boards. */
export class Pilot<T> extends Base {
  private name: string = "{";
  constructor(name: string) {
    if (name) {
      call(name);
    }
  }

  async board(
    ship: Ship,
  ): Promise<void> {
    return ship.all.map((y) => {
      return y;
    });
  }
}
export const run = async (a: number) => {
  console.log(`
class Fake {
  x
`);
};
describe("x", () => {
  it();
});
""",
    "a.go": """
// A Server serves.
type Server struct {
	port int
}

func (s *Server) Run(a int) error {
	f := func() {
	}
	return nil
}
var x = 1
""",
    "a.rs": """
#[derive(Debug)]
pub struct Ship<'a> {
    name: &'a str,
}
impl<'a> Display for Ship<'a> {
    /// The name.
    pub fn name(&self) -> char {
        '{'
    }
}
fn main()
where
    T: X,
{
    println!("hi");
}
""",
    "A.java": """
@Service
public class Pilot {
    private final Map<String, Integer> m = new HashMap<>();

    @Override
    public <T> List<T> find(String a,
                            int b) throws IOException {
        for (int i = 0; i < 3; i++) {
            call(i);
        }
    }
}
""",
    "a.c": """
/* Adds. */
static int add(int a, int b)
{
#ifdef X
    a++;
#endif
    if (a)
    {
        b++;
    }
}
struct ship *make(const char *name) {
    return 0;
}
struct ship;
int x;
""",
    "a.rb": """
module Harbour
  class Pilot < Base
    def board(ship)
      ship
    end

    attr_reader :x
  end
end
""",
    "a.sh": "set -e\nbuild() {\n  echo hi\n}\nbuild\n",
    "a.sql": "CREATE TABLE IF NOT EXISTS pilots (\n  id INT\n);\nSELECT 1;\n",
}
TITLES = {
    "a.ts": ["class Pilot", "class Pilot > constructor()", "class Pilot > board()", "const run", None],
    "a.go": ["type Server", "func (s *Server) Run", None],
    "a.rs": ["struct Ship", "impl<'a> Display for Ship<'a>", "impl<'a> Display for Ship<'a> > fn name", "fn main"],
    "A.java": ["class Pilot", "class Pilot > find()"],
    "a.c": ["add()", "make()", None],
    "a.rb": [
        "module Harbour",
        "module Harbour > class Pilot",
        "module Harbour > class Pilot > def board",
        "module Harbour > class Pilot",
    ],
    "a.sh": ["build", None],
    "a.sql": ["CREATE TABLE IF NOT EXISTS pilots", None],
}


@pytest.mark.parametrize("name", SOURCES)
def test_definitions_of_many_languages(tmp_path: Path, name: str) -> None:
    parsed = parse_file(samples.text(tmp_path / "a", SOURCES[name]), name)
    assert parsed.text == SOURCES[name] and parsed.media_type == "text/x-source"
    assert [parsed.heading_at(heading.start) for heading in parsed.headings] == TITLES[name]


def test_what_stands_above_a_definition_goes_with_it(tmp_path: Path) -> None:
    parsed = parse_file(samples.text(tmp_path / "a", SOURCES["A.java"]), "A.java")
    assert [parsed.text[heading.start :].split()[0] for heading in parsed.headings] == ["@Service", "@Override"]


def test_a_script_is_told_by_its_first_line(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a", "#!/usr/bin/env python3\ndef main():\n    pass\n")
    assert parse_file(path, "tool").headings[0].title == "def main"


def test_a_definition_is_a_chunk_and_lines_stay_whole(tmp_path: Path) -> None:
    parsed = parse_file(samples.code(tmp_path / "a.py"), "a.py")
    found = [(each.heading, parsed.text[each.start : each.end]) for each in chunk(parsed, 400)]
    headings = [None, "class Pilots", "class Pilots > def ladder", "async def Boarding", None]
    assert [heading for heading, _ in found] == headings
    assert found[2][1].startswith("@property\n") and found[3][1].endswith("print(inner())")
    short = [line.strip() for line in parsed.text.split("\n") if 0 < len(line.strip()) <= 60]
    pieces = [line.strip() for each in chunk(parsed, 60) for line in parsed.text[each.start : each.end].split("\n")]
    assert set(short) <= set(pieces)


def definitions(body: list[ast.stmt], above: str = "") -> Iterator[tuple[str, int, int]]:
    """(path, first line, last line) as Python's own parser sees them."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            word = {"ClassDef": "class", "FunctionDef": "def"}.get(type(node).__name__, "async def")
            path = f"{above} > {word} {node.name}" if above else f"{word} {node.name}"
            if node.body[0].lineno > node.lineno:
                yield path, node.lineno, node.end_lineno or 0
                if word == "class":
                    yield from definitions(node.body, path)
        elif isinstance(node, ast.If):
            yield from definitions([*node.body, *node.orelse], above)


@pytest.mark.slow
def test_agrees_with_pythons_own_parser() -> None:
    """On every module of the standard library's first folder."""
    seen = 0
    for name in glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py")):
        try:
            parsed = parse_file(Path(name), name)
            expected = list(definitions(ast.parse(parsed.text).body))
        except (SyntaxError, ValueError):
            continue
        lines = parsed.text.split("\n")
        ends = [0]
        for line in lines:
            ends.append(ends[-1] + len(line) + 1)
        for path, first, last in expected:
            seen += 1
            assert _heading(parsed, ends[first] - 2) == path, (name, first)
            assert _heading(parsed, ends[last] - 2).startswith(path), (name, last)
    assert seen > 5_000


def _heading(parsed: ParsedDocument, offset: int) -> str:
    return parsed.heading_at(offset) or ""


@pytest.mark.parametrize(
    "text",
    [
        '"' * 300_000,
        "/*" * 300_000,
        "'''" * 200_000,
        "`\\" * 300_000,
        "f(" * 300_000,
        "a b " * 300_000,
        "\n".join(" " * (number % 90) + "def f():" for number in range(30_000)),
        "def f(\n" * 100_000,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("name", ["a.py", "a.ts", "a.rs"])
def test_hostile_code_takes_linear_time(tmp_path: Path, text: str, name: str) -> None:
    path = samples.text(tmp_path / "a", text)
    began = time.process_time()
    parse_file(path, name)
    assert time.process_time() - began < 10
