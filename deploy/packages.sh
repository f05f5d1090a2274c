# shellcheck shell=bash disable=SC2034
# Sourced by deploy/run.sh and tests/run.sh: installs the Debian packages that are missing, and says so.

packages_build=(build-essential cmake ninja-build pkg-config libzmq3-dev libmsgpack-dev libbsd-dev libjansson-dev
    libhwloc-dev libcurl4-openssl-dev libseccomp-dev libyaml-dev libcmocka-dev python3)
packages_test=(clang libclang-rt-14-dev python3-zmq python3-msgpack python3-numpy procps)
packages_aarch64=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)

# install_packages NAME...: fails with the list of what is missing when it cannot install.
install_packages() {
    local missing=() name sudo=""
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    echo "Installing missing packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "not root and no sudo: install these packages by hand" >&2; return 1; }
        sudo=sudo
    fi
    # The lists may be old or, on a fresh machine, absent: refresh them only when the first try fails.
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
        { echo "cannot install: ${missing[*]}" >&2; return 1; }
}
