#!/usr/bin/env bash
# Makes the default models again, from nothing: text, tokenizers, training, GGUF files, cards, golden answers.
# For maintainers. Takes five to twenty minutes a model, on one core; finished checkpoints in DIRECTORY are kept and used.
#
#   deploy/models/make.sh [DIRECTORY]
#
# Needs Debian 12's python3-torch, python3-numpy and libopenblas0-pthread (without the last one torch is much slower).
set -euo pipefail
directory=$(realpath -m "${1:-$(dirname "$0")/../../build/models}")
cd "$(dirname "$0")"
mkdir -p "$directory"
export OPENBLAS_NUM_THREADS=1 # one thread adds in one order: the same weights each time on one kind of machine
# Memory is kept for the next step: giving it back and getting it again, page by page, takes longer than some of the work.
export MALLOC_TOP_PAD_=536870912 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2000000000
python=/usr/bin/python3 # Debian's torch is not seen by another python

"$python" export.py text
for name in woolhill-llama woolhill-mistral woolhill-granite woolhill-qwen2 woolhill-chat; do
    "$python" train.py "$name" "$directory"
    "$python" export.py "$name" "$directory"
done
ls -l ./*.gguf
