#!/usr/bin/env bash
# Installs what the tests need, builds every variant and runs every test.
#
#   tests/run.sh          what belongs in CI: some minutes on two cores
#   tests/run.sh --long   the same with 60 s per fuzz target, 10,000 requests at the scheduler and at the server, and
#                         workers that die for five minutes
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

fuzz_seconds=10
soak_requests=
case "${1:-}" in
    "") ;;
    --long) fuzz_seconds=60 soak_requests=10000 ;;
    *) echo "usage: tests/run.sh [--long]" >&2; exit 2 ;;
esac

install_packages "${packages_build[@]}" "${packages_test[@]}"
install_packages "${packages_aarch64[@]}" || true # its test says that it did not run
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    install_packages nodejs npm || true # its test says that it did not run
fi

summary=()
not_run=()
step() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    "$@"
    summary+=("$(printf '%-28s %4d s' "$name" $((SECONDS - begin)))")
}

build() {
    cmake --preset "$1" >/dev/null
    cmake --build --preset "$1" -- --quiet
}

run_ctest() {
    local preset=$1
    shift
    ctest --preset "$preset" --timeout 300 -j "$(nproc)" "$@"
    note_not_run "$preset"
}

# What did not run stands in the output of tests that ctest shows as passed or skipped.
note_not_run() {
    local folder=build line
    [ "$1" = release ] || folder=build-$1
    while IFS= read -r line; do
        not_run+=("$1: $line")
    done < <(grep -ohE "NOT RUN: [^']*" "$folder/Testing/Temporary/LastTest.log" | sort -u)
}

fuzz_one() {
    local target=$1 name=${1##*/fuzz_} corpora
    corpora=("build-fuzz/corpus/$name")
    mkdir -p "${corpora[0]}"
    [ ! -d "tests/fuzz/seeds/$name" ] || corpora+=("tests/fuzz/seeds/$name")
    echo "-- fuzz $name for $fuzz_seconds s"
    "$target" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0 \
        -artifact_prefix="build-fuzz/$name-" "${corpora[@]}"
}

fuzz() {
    export -f fuzz_one
    export fuzz_seconds
    printf '%s\0' build-fuzz/fuzz/fuzz_* | xargs -0 -n 1 -P "$(nproc)" bash -c 'fuzz_one "$0"'
}

aarch64_kernels() {
    local out=build-aarch64/output line
    mkdir -p build-aarch64
    tests/aarch64.sh | tee "$out"
    while IFS= read -r line; do
        not_run+=("aarch64: $line")
    done < <(grep "^NOT RUN: kernels" "$out")
}

step "release: build" build release
step "release: tests" run_ctest release
step "aarch64: kernels" aarch64_kernels
step "clang: build" build clang
step "clang: unit and kernel tests" run_ctest clang -LE "e2e|golden"
[ -z "$soak_requests" ] || WOOLLY_SOAK_REQUESTS=$soak_requests step "release: long soak" run_ctest release -R "^soak"
[ -z "$soak_requests" ] || WOOLLY_CHAOS_SECONDS=300 step "release: long chaos" run_ctest release -R "^chaos$" --timeout 500
step "asan: build" build asan
step "asan: tests" run_ctest asan -E "^(logits|same_answer)$" # minutes of arithmetic that kernels and engine cover
step "tsan: build" build tsan
step "tsan: tests" run_ctest tsan -R "^(wire|client|keys|uplink|host|pool|engine|sessions|soak|serve|command_line)$" # what has threads
step "fuzz: build" build fuzz
step "fuzz: targets" fuzz

echo
printf '%s\n' "${summary[@]}"
[ ${#not_run[@]} -eq 0 ] || printf '%s\n' "" "${not_run[@]}" ""
echo "All tests that ran passed in $SECONDS s."
