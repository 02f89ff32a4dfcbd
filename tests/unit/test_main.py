"""What `python -m backend.main` sees to before anything is loaded."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CODE = """
import psutil
from backend.main import main

assert main() == 2
before = psutil.Process().num_threads()
import numpy

square = numpy.ones((500, 500), numpy.float32)
square @ square
print(psutil.Process().num_threads() - before)
"""


def test_products_of_vectors_start_no_threads_that_would_spin_beside_the_server() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", _CODE]
    done = subprocess.run(command, cwd=ROOT, env={**env, "PORT": "none"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stdout + done.stderr
