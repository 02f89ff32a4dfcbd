#!/bin/sh
# What the client tests need beside Python: programs from Debian where they are missing (as root or with sudo), and the
# packages of npm.
set -eu
PATH="$PATH:/usr/sbin"

missing=""
for command in nginx:nginx node:nodejs npm:npm curl:curl openssl:openssl systemd-analyze:systemd; do
    command -v "${command%:*}" >/dev/null || missing="$missing ${command#*:}"
done
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    if ! { command -v apt-get && command -v ${sudo:-apt-get}; } >/dev/null; then
        echo "make test needs$missing: install them, or run it with apt-get and as root or with sudo." >&2
        exit 1
    fi
    echo "Installing$missing"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
    # Debian starts it as a service on port 80; the tests start their own.
    case "$missing" in *nginx*) [ ! -d /run/systemd/system ] || $sudo systemctl disable --quiet --now nginx ;; esac
fi

cd "$(dirname "$0")/node"
npm ci --no-audit --no-fund --loglevel=error
