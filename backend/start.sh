#!/bin/sh
# Set up what the server needs, once, and start it. Settings come from the environment and from .env.
# With the argument `install`, it is only set up.
set -e
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv
lock=backend/requirements.txt

# Install the locked packages. On a terminal, a line counts them; if it fails, pip's own words follow.
install_packages() {
    said="$venv/install.log"
    total=$(grep -c '==' "$lock")
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes --progress-bar off \
        -r "$lock" >"$said" 2>&1 &
    pip=$!
    trap 'kill $pip 2>/dev/null; exit 130' INT TERM
    while kill -0 $pip 2>/dev/null; do
        fetched=$(grep -c '^Collecting' "$said" || true)
        if grep -q '^Installing collected' "$said"; then step="unpacking"; else step="fetching $fetched of $total"; fi
        [ ! -t 2 ] || printf '\r  %s packages ...      ' "$step" >&2
        sleep 1
    done
    trap - INT TERM
    [ ! -t 2 ] || printf '\r\033[K' >&2
    wait $pip || {
        cat "$said" >&2
        exit 1
    }
    rm "$said"
}

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
    install_packages
    touch "$venv/.run"
fi
[ "$1" != install ] || exit 0
exec "$venv/bin/python" -m backend.main
