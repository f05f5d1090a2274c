#!/usr/bin/env bash
# From a fresh machine to running models: installs what is missing, builds, starts a server with two workers for each
# model of deploy/models, or for the one given, streams a story through it, shows its processes, and stops it.
#
#   deploy/run.sh [MODEL.gguf]
set -euo pipefail
[ $# -eq 0 ] || [ -f "$1" ] || { echo "there is no file $1" >&2; exit 1; }
[ $# -eq 0 ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

install_packages "${packages_build[@]}" procps

echo "Building..."
cmake --preset release >/dev/null
cmake --build --preset release -- --quiet
export PATH="$PWD/build/bin:$PATH"

WOOLLY_RUNTIME_DIR=$(mktemp -d)
export WOOLLY_RUNTIME_DIR
server=
clean_up() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" || true
    rm -rf "$WOOLLY_RUNTIME_DIR"
}
trap clean_up EXIT

if [ $# -eq 1 ]; then
    storyteller=stories
    models=(--model "stories=$1")
else
    storyteller=woolhill-granite
    models=()
    for file in deploy/models/*.gguf; do
        models+=(--model "$file")
    done
fi

log=$WOOLLY_RUNTIME_DIR/log
woolly serve "${models[@]}" --workers 2 --threads 1 >"$WOOLLY_RUNTIME_DIR/ready" 2>"$log" &
server=$!
until grep -q ready "$WOOLLY_RUNTIME_DIR/ready"; do # a large model takes its time
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
cat "$WOOLLY_RUNTIME_DIR/ready"

echo
echo "woolly run $storyteller \"Once upon a time\" -n 200"
echo
woolly run "$storyteller" "Once upon a time" -n 200
echo
echo
woolly run "$storyteller" "Once upon a time" -n 200 --json | sed -nE 's/.*"tok_s": *([0-9.]+).*/\1 tokens per second/p'
if [ $# -eq 0 ]; then
    echo
    echo "woolly-gguf generate deploy/models/woolhill-chat.gguf --chat -p \"What is three plus four?\""
    woolly-gguf generate deploy/models/woolhill-chat.gguf --chat -p "What is three plus four?" 2>/dev/null
fi

echo
echo "Its processes:"
ps -o pid,ppid,rss,args --forest -g "$(ps -o sid= -p "$server" | tr -d ' ')" | grep -E 'PID|woolly: ' | grep -v grep
echo
woolly list
woolly stats
woolly stop
wait "$server"
server=
echo "Stopped cleanly."
