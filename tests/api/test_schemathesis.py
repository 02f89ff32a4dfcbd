"""schemathesis: thousands of requests that it derives from /openapi.json, good and bad ones, and all of its checks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ServerProcess

CONFIG = """
[checks.positive_data_acceptance]
# Rules that no schema can express: a model that exists, a cursor of this server, an end after its start.
expected-statuses = ["2xx", "3xx", 400, 401, 402, 403, 404, 409, 422, 429]
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_response_agrees_with_openapi(tmp_path: Path) -> None:
    """The seed is fixed, so the requests are the same each time. It takes 15 s of CPU."""
    server = ServerProcess(tmp_path / "data", env={"URL_FETCH": "0", "LOG_LEVEL": "ERROR"})
    server.start()
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{server.base}/openapi.json"),
        *("--checks", "all", "--phases", "examples,coverage", "--request-timeout", "10", "--seed", "1"),
        *("--generation-database", "none", "--max-failures", "20", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=380)
    code, logged = server.stop()
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert code == 0 and "Traceback" not in logged, logged[-4000:]
