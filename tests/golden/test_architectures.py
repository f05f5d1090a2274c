#!/usr/bin/env python3
"""The logits of a small random model of every architecture against the float64 forward pass of reference.py.

    test_architectures.py WOOLLY_GGUF MAKE_GGUF
"""

import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("NOT RUN: this Python has no numpy")
    sys.exit(77)

from reference import Model

SIZES = "--type F32 --layers 3 --embd 64 --heads 4 --kv-heads 2 --ff 96 --vocab 320 --ctx 128"
N_TOKENS = 41

# What each case is about, and what make_gguf makes it with, besides SIZES.
CASES = [
    ("llama", "--arch llama"),
    ("llama with tied output", "--arch llama --tied"),
    ("llama with F16 weights", "--arch llama --type F16"),
    ("llama with as many KV heads as heads", "--arch llama --kv-heads 4"),
    ("llama with wide heads", "--arch llama --head-dim 24"),
    ("llama with partial rotary", "--arch llama --rot 8"),
    ("llama with llama3 factors", "--arch llama --rope llama3"),
    ("llama with linear scaling", "--arch llama --rope linear"),
    ("llama with YaRN", "--arch llama --rope yarn"),
    ("llama with YaRN, wide heads", "--arch llama --rope yarn --head-dim 64 --ctx 16384"),
    ("mistral: a window within a block", "--arch llama --window 9"),
    ("mistral: a window over blocks", "--arch llama --window 33"),
    ("mixtral", "--arch llama --experts 8"),
    ("granite", "--arch granite"),
    ("granitemoe", "--arch granitemoe"),
    ("granitemoe with a shared expert", "--arch granitemoe --shared-ff 48"),
    ("qwen2", "--arch qwen2"),
    ("qwen2 with YaRN", "--arch qwen2 --rope yarn"),
    ("qwen2moe", "--arch qwen2moe --experts 7 --experts-used 3 --expert-ff 40 --shared-ff 72"),
    ("qwen3", "--arch qwen3 --head-dim 32"),
    ("qwen3moe", "--arch qwen3moe --head-dim 32 --experts 16 --experts-used 4 --expert-ff 24"),
    ("gemma", "--arch gemma --head-dim 32"),
    ("gemma2", "--arch gemma2 --head-dim 32 --window 7"),
    ("phi3 with long factors", "--arch phi3"),
    ("phi3 with short factors", "--arch phi3 --ctx 512"),
    ("phi3 with partial rotary and a window", "--arch phi3 --rot 12 --window 15"),
    ("gpt2", "--arch gpt2 --kv-heads 4"),
    ("bitnet", "--arch bitnet"),
]


def check(case, options, folder, woolly_gguf, make_gguf):
    """True when they agree. The yardstick is the spread of the logits: single precision leaves about 1e-6."""
    path, out = os.path.join(folder, "model.gguf"), os.path.join(folder, "logits.f32")
    subprocess.run([make_gguf, "--out", path, *SIZES.split(), *options.split()], check=True)
    ids = [(i * i * 7 + i * 31 + 3) % 320 for i in range(N_TOKENS)]
    subprocess.run([woolly_gguf, "logits", path, "--tokens", ",".join(map(str, ids)), "--all", "--kv", "f32",
                    "--out", out], check=True)
    ours = np.fromfile(out, "<f4").reshape(N_TOKENS, -1).astype(np.float64)
    theirs = Model(path).logits(ids)
    spread = theirs.std()
    error = np.abs(ours - theirs).max() / spread
    verdict = "ok" if error < 2e-5 and spread > 0.01 else "WRONG"
    print(f"{verdict:5} {case:40} largest difference {error:.1e} of a spread of {spread:.3f}")
    return verdict == "ok"


def main():
    woolly_gguf, make_gguf = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        results = [check(case, options, folder, woolly_gguf, make_gguf) for case, options in CASES]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
