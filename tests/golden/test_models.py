"""The shipped models against torch: ids, logits, greedy text and perplexity as the files NAME.json and NAME.q8_0.f32
beside this one have them (written by deploy/models/export.py). The logits are compared twice: as the engine computes
with the Q8_0 file, whose activations it rounds, and with the same weights as F32, where only the order of sums differs."""
import array
import glob
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

GGUF = os.path.join(os.environ["WOOLLY_BUILD"], "bin", "woolly-gguf")
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..")
F32_LIMIT, Q8_0_RMS_LIMIT, PERPLEXITY_LIMIT = 1e-4, 2e-3, 1e-3


def woolly_gguf(*arguments):
    done = subprocess.run([GGUF, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def floats(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    if sys.byteorder == "big":
        values.byteswap()
    return values


class Shipped(unittest.TestCase):
    def differences(self, model, golden, name):
        """Of every logit, in the order of the golden file."""
        expected, at, vocab = floats(os.path.join(HERE, name + ".q8_0.f32")), 0, golden["vocab"]
        result = []
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "logits")
            for prompt in golden["prompts"]:
                woolly_gguf("logits", model, "--all", "--tokens", ",".join(map(str, prompt["ids"])), "--out", out)
                logits = floats(out)
                for position in prompt["positions"]:
                    for i in range(vocab):
                        result.append(logits[position * vocab + i] - expected[at + i])
                    at += vocab
        self.assertEqual(at, len(expected))
        return result

    def check(self, name):
        with open(os.path.join(HERE, name + ".json")) as f:
            golden = json.load(f)
        model = os.path.join(SOURCE, "deploy", "models", name + ".gguf")
        with tempfile.TemporaryDirectory() as folder:
            exact = os.path.join(folder, "exact.gguf")
            woolly_gguf("quantize", model, exact, "F32")
            worst = max(map(abs, self.differences(exact, golden, name)))
        self.assertLess(worst, F32_LIMIT)
        shipped = self.differences(model, golden, name)
        rms = math.sqrt(sum(d * d for d in shipped) / len(shipped))
        self.assertLess(rms, Q8_0_RMS_LIMIT)

        for case in golden["tokens"]:
            ids = json.loads(woolly_gguf("tokenize", model, "--json", "--no-bos", case["text"]))
            self.assertEqual(ids, case["ids"], case["text"])
        text = os.path.join(SOURCE, golden["perplexity"]["text"])
        perplexity = json.loads(woolly_gguf("perplexity", model, text, "--json"))["perplexity"]
        self.assertLess(abs(perplexity / golden["perplexity"]["value"] - 1), PERPLEXITY_LIMIT)
        print(f"{name}: F32 within {worst:.1e} of torch, Q8_0 rms {rms:.1e}, perplexity {perplexity:.4f}")

    def test_every_model_is_what_torch_made(self):
        names = [os.path.basename(p)[:-5] for p in sorted(glob.glob(os.path.join(SOURCE, "deploy/models/*.gguf")))]
        self.assertGreaterEqual(len(names), 5)
        for name in names:
            with self.subTest(name):
                self.check(name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
