"""`woolly-bench`: what its answers look like, and whom it believes. No figure is checked: machines differ."""
import json
import os
import shutil
import stat
import subprocess
import tempfile
import unittest

from server import BUILD, make_model, seconds

BENCH = os.path.join(BUILD, "bin", "woolly-bench")
folder = tempfile.mkdtemp(prefix="woolly-bench-")
MODEL = make_model(os.path.join(folder, "model.gguf"))

# Prints what llama-bench and llama-batched-bench print, and notes how it was asked.
PEER = """#!/usr/bin/python3
import json, sys
asked = sys.argv[1:]
with open({notes!r}, "a") as f:
    f.write(json.dumps(asked) + "\\n")
def of(option):
    return [int(n) for n in asked[asked.index(option) + 1].split(",")]
if "--help" in asked:
    print("  -d, --n-depth <n>")
elif "-npl" in asked:
    for p in of("-npp"):
        for n in of("-ntg"):
            for b in of("-npl"):
                print(f"| {{p}} | {{n}} | {{b}} | 99 | 1.000 | 7.50 | 1.000 | 2.50 | 2.0 | 3.0 |", file=sys.stderr)
else:
    depth = of("-d")[0] if "-d" in asked else 0
    figures = [dict(n_prompt=p, n_gen=0, n_depth=depth, avg_ts=7.5) for p in of("-p") if p]
    figures += [dict(n_prompt=0, n_gen=n, n_depth=depth, avg_ts=2.5) for n in of("-n") if n]
    print(json.dumps(figures, indent=1))
"""


def tearDownModule():
    shutil.rmtree(folder)


def bench(*arguments):
    return subprocess.run([BENCH, *arguments], capture_output=True, text=True, timeout=seconds(120))


def engine(*arguments):
    done = bench("engine", "--model", MODEL, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def program(name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, stat.S_IRWXU)
    return path


class Engine(unittest.TestCase):
    def test_answer_has_medians_and_every_combination(self):
        answer = engine("-p", "16,8", "-n", "4", "-t", "1,2", "-d", "0,8", "-r", "3")
        self.assertEqual((answer["reps"], answer["threads"]), (3, 1))
        self.assertTrue(answer["isa"])
        rows = [(r["threads"], r["depth"], r["test"], r["tokens"], r["batch"]) for r in answer["results"]]
        self.assertEqual(rows, [(t, d, *test, 1) for t in (1, 2) for d in (0, 8)
                                for test in (("prefill", 16), ("prefill", 8), ("decode", 4))])
        for row in answer["results"]:
            self.assertEqual(len(row["samples"]), 3)
            self.assertEqual(row["median"], sorted(row["samples"])[1])
            self.assertGreater(row["min"], 0)
        self.assertEqual(answer["prefill_tok_s"], answer["results"][0]["tok_s"])
        self.assertEqual(answer["decode_tok_s"], answer["results"][2]["tok_s"])

    def test_batch_decodes_behind_a_prompt_of_each_sequence(self):
        answer = engine("-p", "8", "-n", "4", "-b", "1,3", "-t", "1", "-r", "1")
        self.assertEqual([(r["test"], r["batch"], r["depth"]) for r in answer["results"]],
                         [("prefill", 1, 0), ("decode", 1, 8), ("prefill", 3, 0), ("decode", 3, 8)])

    def test_what_was_not_measured_is_null(self):
        answer = engine("-p", "0", "-n", "2", "-t", "1", "-r", "1")
        self.assertIsNone(answer["prefill_tok_s"])
        self.assertGreater(answer["decode_tok_s"], 0)

    def test_table_has_a_line_for_each_test(self):
        done = bench("engine", "--model", MODEL, "-p", "8", "-n", "2", "-t", "1", "-r", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^prefill +1 +1 +0 +8 ")
        self.assertRegex(done.stdout, r"(?m)^decode +1 +1 +0 +2 ")

    def test_wrong_usage_is_status_2_and_one_line(self):
        for wrong in (["-p", "x"], ["-p", "0", "-n", "0"], ["-b", "0"], ["--kv", "q99"], ["more"], ["--bogus"],
                      ["--rounds", "2"], ["--peer", "/bin/true", "-b", "2"], ["--peer-batched", "/bin/true"]):
            done = bench("engine", "--model", MODEL, *wrong)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), wrong)
        self.assertEqual(bench("engine").returncode, 2)
        self.assertEqual(bench().returncode, 2)
        self.assertEqual(bench("nothing").returncode, 2)

    def test_no_model_is_status_1_and_too_large_a_cache_4(self):
        self.assertEqual(bench("engine", "--model", "/nowhere").returncode, 1)
        done = bench("engine", "--model", MODEL, "-p", "16000000", "-n", "16000000", "-b", "4096")
        self.assertEqual((done.returncode, done.stdout), (4, ""))
        self.assertIn("cannot measure", done.stderr)


class Peer(unittest.TestCase):
    def setUp(self):
        self.notes = os.path.join(folder, "notes")
        self.peer = program("peer", PEER.format(notes=self.notes))

    def tearDown(self):
        if os.path.exists(self.notes):
            os.remove(self.notes)

    def asked(self):
        with open(self.notes) as f:
            return [json.loads(line) for line in f]

    def test_peer_is_run_once_per_round_on_the_same_file(self):
        answer = engine("-p", "8", "-n", "4", "-t", "1", "--peer", self.peer, "--rounds", "2", "--peer-args", "-rtr 1")
        self.assertEqual(answer["reps"], 2)
        self.assertEqual((answer["peer_prefill_tok_s"], answer["peer_decode_tok_s"]), (7.5, 2.5))
        for row, rate in zip(answer["results"], (7.5, 2.5)):
            self.assertEqual(row["peer"]["samples"], [rate, rate])
            self.assertEqual(len(row["samples"]), 2)
            self.assertAlmostEqual(row["ratio"] / (row["tok_s"] / rate), 1, places=4)
        self.assertEqual(self.asked(), 2 * [["-m", MODEL, "-t", "1", "-fa", "1", "-p", "8", "-n", "4", "-r", "1",
                                             "-o", "json", "-rtr", "1"]])

    def test_depth_is_asked_for_by_the_option_the_peer_has(self):
        answer = engine("-p", "8", "-n", "4", "-d", "16", "-t", "1", "--peer", self.peer, "--rounds", "1")
        self.assertEqual(answer["peer_decode_tok_s"], 2.5)
        self.assertEqual(self.asked()[1][-2:], ["-o", "json"])
        self.assertIn("-d", self.asked()[1])

    def test_batches_are_compared_row_by_row(self):
        answer = engine("-p", "8", "-n", "4", "-b", "1,2", "-t", "1", "--peer-batched", self.peer, "--rounds", "1")
        self.assertEqual([r["peer"]["median"] for r in answer["results"]], [7.5, 2.5, 7.5, 2.5])
        self.assertEqual(self.asked(), [["-m", MODEL, "-t", "1", "-c", "256", "-npp", "8", "-ntg", "4", "-npl", "1,2"]])

    def test_peer_that_cannot_be_measured_is_status_4(self):
        failing = program("failing", "#!/bin/sh\necho first >&2\necho unknown model architecture >&2\nexit 1\n")
        for peer in (failing, "/no/such/program", "/bin/true"):
            done = bench("engine", "--model", MODEL, "-p", "8", "-n", "2", "-t", "1", "--peer", peer)
            self.assertEqual((done.returncode, done.stdout), (4, ""), done.stderr)
        done = bench("engine", "--model", MODEL, "-p", "8", "-n", "2", "-t", "1", "--peer", failing)
        self.assertIn("unknown model architecture", done.stderr)


class Kernels(unittest.TestCase):
    def test_answer_has_ceilings_and_the_shares_of_each_type(self):
        done = bench("kernels", "-t", "1", "-r", "1", "--types", "Q8_0,F32", "--rows", "1,8", "--kv", "f16",
                     "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        names = {c["name"] for c in answer["ceilings"]}
        self.assertTrue({"read", "f32"} <= names)
        self.assertEqual([(k["kernel"], k["type"], k["rows"], k["depth"]) for k in answer["kernels"]],
                         [("multiply", t, rows, None) for t in ("Q8_0", "F32") for rows in (1, 8)] +
                         [("attention", "f16", rows, depth) for depth in (512, 4096) for rows in (1, 8)])
        for kernel in answer["kernels"]:
            self.assertGreater(kernel["gb_s"]["median"], 0)
            self.assertGreater(kernel["gop_s"]["median"], 0)
            self.assertGreater(kernel["read_share"], 0)
        self.assertGreater(answer["kernels"][3]["compute_share"], 0)

    def test_wrong_usage_is_status_2(self):
        for wrong in (["--types", "Q99"], ["--types", ""], ["--rows", "0"], ["--rows", "513"], ["--kv", "f15"],
                      ["-t", "x"], ["more"]):
            self.assertEqual(bench("kernels", *wrong).returncode, 2, wrong)


if __name__ == "__main__":
    unittest.main(verbosity=2)
