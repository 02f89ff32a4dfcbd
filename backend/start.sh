#!/bin/sh
# Set up what the server needs, once, and start it. Settings come from the environment and from .env.
# With the argument `install`, it is only set up.
set -e
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv
lock=backend/requirements.txt

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "streamforge: needs Python 3.11 or later; set PYTHON to one, e.g. PYTHON=python3.12 make run" >&2
        exit 1
    }
    echo "Making a virtual environment in $venv ..."
    "$python" -m venv "$venv"
fi
if [ ! -e "$venv/.run" ] || [ "$lock" -nt "$venv/.run" ]; then
    echo "Installing StreamForge's dependencies (about 700 MB, once) ..."
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock"
    touch "$venv/.run"
fi
[ "$1" != install ] || exit 0
exec "$venv/bin/python" -m backend.main
