#!/usr/bin/env bash
# From a fresh machine to a running model: installs what is missing, builds, starts a server with two workers,
# streams a story through it, shows its processes, and stops it.
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

model=${1:-${WOOLLY_TEST_DATA:-../shared/data}/models/stories260K-F32.gguf}
if [ ! -e "$model" ]; then
    echo "No model given: making a small random one. It babbles; a path of a GGUF file (llama architecture) gives sense."
    model=$WOOLLY_RUNTIME_DIR/random.gguf
    build/tests/make_gguf --out "$model" --layers 4 --embd 256 --heads 8 --kv-heads 4 --ff 768 --vocab 2048 --ctx 512 --type Q8_0 --seed 1
fi

log=$WOOLLY_RUNTIME_DIR/log
woolly serve --model "stories=$model" --workers 2 --threads 1 >"$WOOLLY_RUNTIME_DIR/ready" 2>"$log" &
server=$!
until grep -q ready "$WOOLLY_RUNTIME_DIR/ready"; do # a large model takes its time
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
cat "$WOOLLY_RUNTIME_DIR/ready"

echo
echo "woolly run stories \"Once upon a time\" -n 200"
echo
woolly run stories "Once upon a time" -n 200 2>"$WOOLLY_RUNTIME_DIR/speed"
echo
cat "$WOOLLY_RUNTIME_DIR/speed"
woolly run stories "Once upon a time" -n 200 --json | sed -nE 's/.*"tok_s": *([0-9.]+).*/\1 tokens per second/p' | head -1

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
