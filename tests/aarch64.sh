#!/usr/bin/env bash
# Compiles the kernels for aarch64 and runs the test of packed products in an emulator: NEON with and without
# products of matrices against scalar. Says NOT RUN where compiler or emulator are not there.
#
#   tests/aarch64.sh [build folder]
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build-aarch64}
compiler=aarch64-linux-gnu-gcc
for program in $compiler qemu-aarch64; do
    if ! command -v $program >/dev/null; then
        echo "NOT RUN: kernels of aarch64, there is no $program here"
        exit 0
    fi
done
mkdir -p "$build"

# As in CMakeLists.txt and worker/kernels/CMakeLists.txt.
flags=(-std=gnu17 -O2 -I. -D_GNU_SOURCE -fno-strict-aliasing -ffp-contract=off
    -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
    -Wno-unknown-pragmas -Wno-psabi)

compile() { # OBJECT SOURCE FLAGS...
    [ "$1" -nt "$2" ] && [ -z "$(find worker/kernels -name '*.h' -newer "$1")" ] && return
    $compiler "${flags[@]}" "${@:3}" -c "$2" -o "$1"
}

objects=()
for source in worker/kernels/*.c; do
    name=$(basename "$source" .c)
    extra=()
    case $name in
        *_avx*) continue ;;
        packed_neon) extra=(-O3 -fno-schedule-insns -fno-tree-ter -march=armv8.2-a+dotprod) ;;
        packed_neon_i8mm) extra=(-O3 -fno-schedule-insns -fno-tree-ter -march=armv8.2-a+dotprod+i8mm) ;;
        pack*) extra=(-O3) ;;
    esac
    compile "$build/$name.o" "$source" "${extra[@]}"
    objects+=("$build/$name.o")
done
$compiler "${flags[@]}" -Itests/kernels/shim -static tests/kernels/test_packed.c "${objects[@]}" -lm \
    -o "$build/test_packed"
qemu-aarch64 -cpu max "$build/test_packed"
