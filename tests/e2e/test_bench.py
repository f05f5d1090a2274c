"""`woolly-bench`: what its answers look like, and whom it believes. No figure is checked: machines differ."""
import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from server import BUILD, Server, make_model, seconds

BENCH = os.path.join(BUILD, "bin", "woolly-bench")
STORIES = os.path.join(os.environ["WOOLLY_SOURCE"], "deploy", "models", "woolhill-llama.gguf")
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


def load(*arguments, model="m", status=0):
    done = bench("load", "--model", model, "--json", *arguments)
    assert done.returncode == status, (done.returncode, done.stderr)
    return json.loads(done.stdout) if status == 0 else done.stderr


class Load(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("m=" + STORIES, options=["--slots", "4", "--workers", "1", "--threads", "1"])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_each_user_gets_whole_answers_all_the_time(self):
        answer = load("--zmq", self.server.endpoint, "--users", "1,6", "--tokens", "16", "--prompt-tokens", "8",
                      "--shared-prefix", "4", "--requests", "12")
        self.assertEqual([r["users"] for r in answer["runs"]], [1, 6])
        self.assertEqual((answer["model"], answer["api"], answer["tokens"]), ("m", "woolly", 16))
        for run in answer["runs"]:
            self.assertEqual((run["requests"], run["errors"], run["never_ended"]), (12, 0, 0))
            self.assertEqual(run["ttft_ms"]["samples"], 12)
            self.assertGreater(run["gap_ms"]["samples"], 0)
            self.assertGreater(run["tok_s"], 0)
            self.assertGreater(run["client_cpu"], 0)
            self.assertLessEqual(run["window_s"], run["total_s"] + 1e-3)  # from two readings of the clock
            for tail in (run["ttft_ms"], run["gap_ms"]):
                self.assertLessEqual(tail["p50"], tail["p95"])
                self.assertLessEqual(tail["p95"], tail["p99"])
                self.assertLessEqual(tail["p99"], tail["max"])
        # One user is busy until the last token of the last answer.
        self.assertEqual(answer["runs"][0]["window_tokens"], 12 * 16)
        self.assertLessEqual(answer["runs"][1]["window_tokens"], 12 * 16)

    def test_run_by_time_ends_in_time(self):
        begin = time.monotonic()
        run = load("--zmq", self.server.endpoint, "--users", "3", "--seconds", "1", "--tokens", "4")["runs"][0]
        self.assertLess(time.monotonic() - begin, seconds(30))
        self.assertAlmostEqual(run["window_s"], 1, delta=0.5)
        self.assertEqual((run["errors"], run["never_ended"]), (0, 0))

    def test_table_has_a_line_for_each_run(self):
        done = bench("load", "--zmq", self.server.endpoint, "--model", "m", "--users", "1,2", "--tokens", "4")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"(?m)^ +1 +[0-9.]+ .* 4 +0 +0 +[0-9.]+ %$")
        self.assertRegex(done.stdout, r"(?m)^ +2 +[0-9.]+ .* 8 +0 +0 +[0-9.]+ %$")

    def test_exit_status_tells_why_there_is_no_figure(self):
        self.assertIn("no model", load("--zmq", self.server.endpoint, "--users", "1", model="other", status=1))
        self.assertIn("context", load("--zmq", self.server.endpoint, "--users", "1", "--prompt-tokens", "9999", status=4))
        load("--zmq", "ipc://" + folder + "/nobody", "--users", "1", status=3)
        load("--url", "http://127.0.0.1:1", "--users", "1", status=3)
        load("--url", "file:///etc/passwd", "--users", "1", status=1)

    def test_wrong_usage_is_status_2_and_one_line(self):
        for wrong in ([], ["--users", "0"], ["--users", "1025"], ["--users", "1", "--requests", "4", "--seconds", "1"],
                      ["--users", "4", "--requests", "3"], ["--users", "1", "--zmq", "x", "--url", "y"],
                      ["--users", "1", "--api", "openai"], ["--users", "1", "--url", "y", "--api", "z"],
                      ["--users", "1", "more"], ["--users", "1", "--tokens", "0"], ["--users", "1", "--bogus"]):
            done = bench("load", "--model", "m", *wrong)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), wrong)
        self.assertEqual(bench("load", "--users", "1").returncode, 2)


class Handler(BaseHTTPRequestHandler):
    """Streams an answer of as many tokens as were asked for, in the words of llama-server or of OpenAI. From
    the second request on each can be made to fail in some way."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        meta = {"n_vocab": 1000} if self.server.tells_vocabulary else {}
        self.answer(200, json.dumps({"data": [{"meta": meta}]}))

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def event(self, data):
        self.wfile.write(b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n")
        self.wfile.flush()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body))
            trouble = self.server.trouble if len(self.server.asked) > 1 else None
            self.server.trouble = None if len(self.server.asked) > 1 else self.server.trouble
        if trouble == "refuse":
            return self.answer(503, json.dumps({"error": {"message": "all slots are taken"}}))
        self.send_response(200)
        self.end_headers()
        (self.completion if self.path == "/completion" else self.openai)(body, trouble)

    def completion(self, body, trouble):
        for _ in range(body["n_predict"]):
            self.event({"content": "a", "stop": False})
            if trouble == "silence":
                return self.server.released.wait(seconds(60))
            if trouble == "error":
                return self.event({"error": {"message": "no memory"}})
            if trouble == "garbage":
                return self.event("}{")
            if trouble == "break":
                return None
        self.event({"content": "", "stop": True, "tokens_predicted": body["n_predict"]})

    def openai(self, body, _):
        for _ in range(body["max_tokens"]):
            self.event({"choices": [{"text": "a", "finish_reason": None}]})
        self.event({"choices": [{"text": "", "finish_reason": "length"}]})
        self.event({"choices": [], "usage": {"completion_tokens": body["max_tokens"]}})
        self.event("[DONE]")


class LoadOverHttp(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.lock, self.server.asked, self.server.released = threading.Lock(), [], threading.Event()
        self.server.trouble, self.server.tells_vocabulary = None, True
        self.url = "http://127.0.0.1:%d/" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def tearDown(self):
        self.server.released.set()
        self.server.shutdown()
        self.server.server_close()

    def load(self, *more, **how):
        return load("--url", self.url, "--users", "3", "--requests", "6", "--tokens", "4", "--prompt-tokens", "5",
                    *more, **how)

    def test_llama_server_gets_ids_that_no_other_request_has(self):
        run = self.load()["runs"][0]
        self.assertEqual((run["requests"], run["errors"], run["never_ended"]), (6, 0, 0))
        self.assertEqual({path for path, _ in self.server.asked}, {"/completion"})
        self.assertEqual(len(self.server.asked), 1 + 6)
        for _, body in self.server.asked:
            self.assertEqual((body["n_predict"], body["stream"], body["ignore_eos"], body["cache_prompt"]),
                             (4, True, True, False))
            self.assertEqual(len(body["prompt"]), 5)
            self.assertTrue(all(0 <= i < 1000 for i in body["prompt"]))
        self.assertEqual(len({tuple(body["prompt"]) for _, body in self.server.asked}), 7)

    def test_shared_prefix_may_come_from_the_cache(self):
        self.load("--shared-prefix", "3")
        self.assertTrue(all(body["cache_prompt"] for _, body in self.server.asked))
        self.assertEqual(len({tuple(body["prompt"][:3]) for _, body in self.server.asked}), 1)

    def test_openai_gets_words(self):
        self.server.tells_vocabulary = False
        run = self.load("--api", "openai")["runs"][0]
        self.assertEqual((run["requests"], run["errors"]), (6, 0))
        for path, body in self.server.asked:
            self.assertEqual((path, body["model"], body["max_tokens"]), ("/v1/completions", "m", 4))
            self.assertEqual(len(body["prompt"].split()), 5)

    def test_single_failures_are_counted_and_the_run_goes_on(self):
        for trouble, why in (("refuse", "HTTP status 503: all slots are taken"), ("error", "no memory"),
                             ("garbage", "the server streams what is no completion"),
                             ("break", "the answer broke off")):
            self.server.trouble = trouble
            self.server.asked.clear()
            run = self.load()["runs"][0]
            self.assertEqual((run["requests"], run["errors"], run["last_error"]), (5, 1, why))

    def test_request_that_never_ends_is_given_up(self):
        self.server.trouble = "silence"
        run = self.load("--timeout", "1")["runs"][0]
        self.assertEqual((run["requests"], run["errors"], run["never_ended"]), (5, 0, 1))

    def test_server_that_tells_no_vocabulary_is_not_measurable_with_ids(self):
        self.server.tells_vocabulary = False
        self.assertIn("--api openai", self.load(status=4))


if __name__ == "__main__":
    unittest.main(verbosity=2)
