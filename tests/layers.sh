#!/usr/bin/env bash
# The layering check: which folder may include which, by the #include lines. Prints every line that breaks a rule.
set -u
cd "$(dirname "$0")/.." || exit 1
broken=0

# rule FOLDER DEPTH ALLOWED...: sources in FOLDER (DEPTH 1: not in its subfolders) include only from ALLOWED.
rule() {
    local folder=$1 depth=$2 allowed hit
    shift 2
    allowed=$(printf '|%s/' "$@")
    hit=$(find "$folder" -maxdepth "$depth" -name '*.[ch]' -exec grep -HnE '^#include "' {} + |
        grep -vE "#include \"(${allowed#|})[^/]*\"")
    [ -z "$hit" ] || { echo "$folder may include only: $*"; echo "$hit"; broken=1; }
}

# only_in HEADER FOLDER-PATTERN: a system header that belongs to some folders alone.
only_in() {
    local hit
    hit=$(grep -rnE "^#include <$1" --include='*.[ch]' common proto broker worker bench | grep -vE "^($2)")
    [ -z "$hit" ] || { echo "<$1...> is included outside of $2"; echo "$hit"; broken=1; }
}

rule common 1 common
rule proto 1 common proto
rule proto/cli 1 common proto proto/cli
rule broker 9 common proto broker broker/ensemble broker/gateway
rule worker/kernels 9 worker/kernels
rule worker/kv 9 common worker/kernels worker/kv
rule worker/model 9 common worker/kernels worker/kv worker/model
rule worker/token 9 common worker/model worker/token
rule worker/tools 9 common worker worker/kernels worker/kv worker/model worker/token worker/tools
rule bench 9 common proto bench
rule worker 1 common proto worker worker/kernels worker/kv worker/model worker/token
only_in zmq.h 'proto/|broker/|worker/[a-z_]*\.[ch]:'
only_in msgpack 'proto/schema.c:'
only_in curl/ 'bench/load_http\.c:'
only_in hwloc 'common/topology\.c:'
only_in yaml.h 'broker/config_file\.c:'
only_in seccomp.h 'worker/sandbox\.c:'
only_in pthread.h 'worker/model/|worker/sessions\.c:|proto/'

[ $broken -eq 0 ] && echo "layers: every include is allowed"
exit $broken
