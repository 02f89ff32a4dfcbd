"""The shape of the API: `/openapi.json` without the texts for people, with sorted keys and paths.

python -m tests.support.openapi_shape > before.json     # then change the code
python -m tests.support.openapi_shape before.json       # exit code 1 and the difference, if the shape has changed
"""

import difflib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from backend.app import create_app
from tests.support.harness import settings

_TEXTS = frozenset({"description", "summary", "tags", "operationId"})


def shape_of(value: Any, *, is_named: bool = False) -> Any:
    """`value` without texts. `is_named`: its keys are names of properties or schemas, not keywords of OpenAPI."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {
            key: shape_of(child, is_named=not is_named and key in ("properties", "schemas"))
            for key, child in sorted(pairs)
            if is_named or key not in _TEXTS
        }
    if isinstance(value, list):
        return [shape_of(child) for child in cast("list[Any]", value)]
    return value


def current_shape() -> str:
    """The shape of this code's API, as indented JSON."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(settings(Path(folder)))
        return json.dumps(shape_of(app.openapi()), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    """The exit code. Prints the shape, or its difference to the file of the first argument."""
    shape = current_shape()
    if len(sys.argv) < 2:
        sys.stdout.write(shape)
        return 0
    before = Path(sys.argv[1]).read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), shape.splitlines(True), "before", "now", n=4))
    return int(before != shape)


if __name__ == "__main__":
    sys.exit(main())
