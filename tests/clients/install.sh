#!/bin/sh
# Installs BUILD into a temporary folder, builds a C program against what is there, shared and static, and a C++
# one, and lets them complete a prompt of the server at ENDPOINT (without one they are only built).
# usage: install.sh BUILD [ENDPOINT MODEL]
# shellcheck disable=SC2046 # pkg-config prints several words
set -eu
build=$1
endpoint=${2-}
model=${3-}
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >"$prefix/install.log" || { cat "$prefix/install.log"; exit 1; }
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name woolly.pc)")
export PKG_CONFIG_PATH

cc -std=c99 -Wall -Wextra -Werror -pedantic "$here/program.c" -o "$prefix/shared" \
    $(pkg-config --cflags --libs woolly) -Wl,-rpath,"$(pkg-config --variable=libdir woolly)"
cc "$here/program.c" -o "$prefix/static" $(pkg-config --cflags woolly) \
    "$(pkg-config --variable=libdir woolly)/libwoolly.a" \
    $(pkg-config --static --libs woolly | sed 's/-lwoolly//')
echo '#include <woolly.h>
int main() { woolly_request r; woolly_request_init(&r, "m", nullptr); return r.temperature != 0; }' >"$prefix/program.cpp"
c++ -Wall -Wextra -Werror -pedantic "$prefix/program.cpp" -o "$prefix/plusplus" \
    $(pkg-config --cflags --libs woolly) -Wl,-rpath,"$(pkg-config --variable=libdir woolly)"
"$prefix/plusplus"

# Nothing but the interface is visible.
visible=$(nm -D --defined-only "$(pkg-config --variable=libdir woolly)/libwoolly.so" | grep -vc ' woolly_' || true)
[ "$visible" = 0 ] || { echo "libwoolly.so shows $visible symbols of its own"; exit 1; }

if [ "$endpoint" ]; then
    "$prefix/shared" "$endpoint" "$model"
    "$prefix/static" "$endpoint" "$model"
fi
"$prefix/bin/woolly" --version
