"""The server as its users see it: one `woolly serve` with two workers of a small random model."""
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

import msgpack
import zmq

from server import BUILD, WOOLLY, Client, Server, make_model, processes_of, run_in_threads, seconds

folder = tempfile.mkdtemp(prefix="woolly-model-")
MODEL = make_model(os.path.join(folder, "tiny.gguf"))


def tearDownModule():
    shutil.rmtree(folder)


class Serving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(f"m={MODEL}", options=["--workers", "2", "--threads", "1", "--slots", "8"])

    @classmethod
    def tearDownClass(cls):
        cls.server.kill() if cls.server.process.poll() is not None else cls.server.stop()

    def setUp(self):
        self.client = Client(self.server)

    def tearDown(self):
        self.client.close()

    def test_processes_are_titled(self):
        titles = " / ".join(processes_of(self.server.pid).values())
        for title in ("woolly: broker", "woolly: host m", "woolly: worker m.0", "woolly: worker m.1"):
            self.assertIn(title, titles)

    def test_health_models_and_stats_answer(self):
        health = self.client.ask("health")
        self.assertEqual((health["type"], health["ready"], health["status"], health["pid"]),
                         ("health", True, "ok", self.server.pid))
        model, = self.client.ask("models")["models"]
        self.assertEqual((model["name"], model["state"], model["architecture"], model["workers"], model["slots"]),
                         ("m", "ready", "llama", 2, 16))
        self.assertEqual(len(self.client.ask("stats")["workers"]), 2)
        self.assertEqual(self.client.ask("ping")["type"], "pong")

    def test_stream_and_whole_answer_agree(self):
        request = dict(prompt="Once upon a time", max_tokens=40, temperature=0.8, seed=7, ignore_end=True)
        end, text, ids = self.client.complete(**request)
        whole, _, _ = self.client.complete(stream=False, **request)
        self.assertEqual((end["finish_reason"], len(ids)), ("length", 40))
        self.assertEqual((whole["text"], whole["ids"], whole["seed"]), (text, ids, 7))
        self.assertEqual(whole["completion_tokens"], 40)
        self.assertGreater(whole["timing"]["tok_s"], 0)

    def test_accepted_comes_first_and_tells_the_seed(self):
        self.client.generate(prompt="x", max_tokens=2, temperature=1)
        accepted = self.client.next()
        self.assertEqual(accepted["type"], "accepted")
        self.assertLess(accepted["seed"], 2**53)
        end, _, ids = self.client.finish(1)[1]
        self.assertEqual(end["seed"], accepted["seed"])
        again = self.client.complete(prompt="x", max_tokens=2, temperature=1, seed=accepted["seed"])
        self.assertEqual(again[2], ids)

    def test_req_socket_gets_one_reply(self):
        with Client(self.server, zmq.REQ) as client:
            client.generate(prompt="hello", max_tokens=5, ignore_end=True)
            reply = client.next()
            self.assertEqual((reply["type"], len(reply["ids"])), ("done", 5))
            self.assertEqual(client.ask("ping")["type"], "pong")

    def test_same_answer_alone_and_in_a_crowd(self):
        requests = [dict(prompt=f"story number {i} " * (i % 5 + 1), max_tokens=20, temperature=0.9, seed=i,
                         ignore_end=True, logprobs=1) for i in range(24)]
        alone = [self.client.complete(stream=False, **r)[0] for r in requests]
        ids = [self.client.generate(stream=False, **r) for r in requests]
        crowd = self.client.finish(*ids)
        for i, before in zip(ids, alone):
            self.assertEqual(crowd[i][0]["ids"], before["ids"])
            self.assertEqual(crowd[i][0]["logprobs"], before["logprobs"])

    def test_log_probabilities_are_sorted_and_hold_the_greedy_choice(self):
        end, _, _ = self.client.complete(prompt="abc", max_tokens=3, logprobs=5, stream=False, ignore_end=True)
        self.assertEqual(len(end["logprobs"]), 3)
        for token in end["logprobs"]:
            values = [t["logprob"] for t in token["top"]]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertEqual((len(values), token["top"][0]["id"]), (5, token["id"]))
            self.assertLessEqual(values[0], 0)

    def test_stop_string_ends_and_stays_out_of_the_text(self):
        _, text, _ = self.client.complete(prompt="Once", max_tokens=60, ignore_end=True)
        stop = text[len(text) // 2:len(text) // 2 + 2]
        end, stopped, _ = self.client.complete(prompt="Once", max_tokens=60, stop=[stop], ignore_end=True)
        self.assertEqual((end["finish_reason"], stopped), ("stop", text[:text.index(stop)]))

    def test_cancel_ends_a_running_request(self):
        i = self.client.generate(prompt="go", max_tokens=400, ignore_end=True)
        while self.client.next()["type"] != "tokens":
            pass
        self.client.send(type="cancel", id=i)
        self.assertIn(self.client.finish_loose(i)["type"], ("cancelled", "done"))

    def test_bad_requests_get_clear_errors(self):
        cases = [
            (dict(), "bad_request"),
            (dict(prompt="a", tokens=[1]), "bad_request"),
            (dict(tokens=[]), "bad_request"),
            (dict(tokens=[10**6]), "bad_request"),
            (dict(tokens=["a"]), "bad_message"),
            (dict(prompt="a", temperature=-1), "bad_message"),
            (dict(prompt="a", max_tokens=0), "bad_message"),
            (dict(prompt="a", stop=[""]), "bad_message"),
            (dict(prompt="a", session="../a"), "bad_request"),
            (dict(prompt="a", logprobs=21), "bad_message"),
            (dict(prompt=5), "bad_message"),
            (dict(prompt="a" * 3000), "context_length_exceeded"),
            (dict(prompt="a", model="nobody"), "unknown_model"),
        ]
        for request, code in cases:
            i = self.client.send(type="generate", request=dict(dict(model="m"), **request))
            event = self.client.next()
            while event["type"] in ("accepted", "tokens"):
                event = self.client.next()
            self.assertEqual((event["type"], event["id"], event["code"]), ("error", i, code), request)
            self.assertFalse(event["retryable"])
            self.assertTrue(event["message"])

    def test_wrong_epoch_and_double_id_are_refused(self):
        self.client.send(type="ping", epoch=5)
        self.assertEqual(self.client.next()["code"], "wrong_epoch")
        i = self.client.generate(prompt="a", max_tokens=100, ignore_end=True)
        self.client.send(type="generate", id=i, request=dict(model="m", prompt="b"))
        seen = []
        while not seen or seen[-1]["type"] != "done":
            seen.append(self.client.next())
        self.assertEqual([e["code"] for e in seen if e["type"] == "error"], ["duplicate_id"])

    def test_hostile_bytes_leave_the_server_well(self):
        garbage = [b"", b"\xc1", b"\x91" * 100, b"\xdd\xff\xff\xff\xff", os.urandom(1000), b"\x80",
                   msgpack.packb({"v": 1}), msgpack.packb({"v": 9, "type": "ping", "id": 1}),
                   msgpack.packb({"v": 1, "type": "register", "id": 1}), msgpack.packb([1, 2, 3])]
        for bytes_ in garbage * 20:
            self.client.socket.send(bytes_)
            answer = self.client.next()
            self.assertEqual((answer["type"], answer["code"]), ("error", "bad_message"), bytes_[:20])
        self.client.socket.send_multipart([b"a", b"b", b"c"])
        self.assertEqual(self.client.next()["code"], "bad_message")
        self.assertEqual(self.client.ask("ping")["type"], "pong")

    def test_deadline_ends_a_running_request(self):
        end, _, _ = self.client.complete(prompt="go", max_tokens=450, ignore_end=True, deadline_ms=1)
        self.assertEqual((end["type"], end.get("code")), ("error", "deadline_exceeded"))

    def test_command_line_speaks_json(self):
        run = self.server.cli("run", "m", "Once upon", "-n", "8", "--seed", "3", "--temperature", "0.5", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        answer = json.loads(run.stdout)
        for key in ("text", "tokens", "finish_reason", "ttft_ms", "tok_s", "model"):
            self.assertIn(key, answer)
        self.assertEqual(json.loads(self.server.cli("list", "--json").stdout)["models"][0]["name"], "m")
        self.assertIn("workers", json.loads(self.server.cli("stats", "--json").stdout))
        self.assertEqual(self.server.cli("run", "nobody", "x").returncode, 1)
        self.assertEqual(self.server.cli("run", "m").returncode, 2)
        self.assertEqual(self.server.cli("nonsense").returncode, 2)

    def test_several_answers_are_those_of_the_seeds_that_follow(self):
        ask = ("run", "m", "Once upon", "-n", "8", "--temperature", "1", "--json")
        several = json.loads(self.server.cli(*ask, "--seed", "3", "--n", "3").stdout)
        self.assertNotIn("text", several)
        for k, choice in enumerate(several["choices"]):
            alone = json.loads(self.server.cli(*ask, "--seed", str(3 + k)).stdout)
            self.assertEqual((choice["index"], choice["tokens"], choice["text"]), (k, alone["tokens"], alone["text"]))
        self.assertEqual(several["completion_tokens"], sum(c["completion_tokens"] for c in several["choices"]))
        self.assertIn("cached_tokens", several)
        printed = self.server.cli("run", "m", "Once upon", "-n", "8", "--temperature", "1", "--seed", "3", "--n", "3")
        self.assertEqual(printed.stdout, "\n".join(f"--- {c['index'] + 1} ---\n{c['text']}" for c in several["choices"]) + "\n")
        self.assertEqual(self.server.cli("run", "m", "x", "--n", "17").returncode, 2)

    def test_the_best_of_several_have_the_highest_mean_logprob(self):
        ask = dict(prompt="Once upon", max_tokens=6, temperature=1.5, seed=5, stream=False)
        every, _, _ = self.client.complete(**ask, n=6)
        best, _, _ = self.client.complete(**ask, n=2, best_of=6)

        def worth(choice):
            return choice["logprob_sum"] / choice["completion_tokens"] if choice["completion_tokens"] else float("-inf")
        wanted = sorted(every["choices"], key=worth, reverse=True)[:2]
        self.assertEqual([c["ids"] for c in best["choices"]], [c["ids"] for c in wanted])

    def test_max_tokens_that_are_asked_for_must_fit(self):
        end, _, _ = self.client.complete(prompt="x", max_tokens=1 << 20)
        self.assertEqual((end["type"], end.get("code")), ("error", "context_length_exceeded"))

    def test_any_seed_of_64_bits_is_taken_and_told(self):
        for seed in (0, 2**53 + 1, 2**63, 2**64 - 1):
            run = self.server.cli("run", "m", "x", "-n", "1", "--seed", str(seed), "--json")
            self.assertEqual(json.loads(run.stdout)["seed"], seed, run.stderr)
        for seed in ("-1", str(2**64), "", " 1", "1x"):
            self.assertEqual(self.server.cli("run", "m", "x", "--seed", seed).returncode, 2, seed)

    def test_output_that_cannot_be_written_is_a_failure(self):
        for command in (["list"], ["list", "--json"], ["stats"], ["run", "m", "x", "-n", "2", "--json"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([WOOLLY, *command], env=self.server.env, stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 1, command)

    def test_prompt_on_standard_input_is_never_cut(self):
        whole = self.server.cli("run", "m", "-", "-n", "2", "--json", input="Once upon")
        self.assertEqual(json.loads(whole.stdout)["text"],
                         json.loads(self.server.cli("run", "m", "Once upon", "-n", "2", "--json").stdout)["text"])
        self.assertEqual(self.server.cli("run", "m", "-", "-n", "2", input="Once\0upon").returncode, 2)

    def test_hundred_clients_at_once_all_end(self):
        kinds = []

        def one(i):
            with Client(self.server) as client:
                end, _, ids = client.complete(prompt=f"client {i}", max_tokens=64, ignore_end=True)
                kinds.append(end["type"])
                self.assertEqual(len(ids), 64)

        run_in_threads(100, one)
        self.assertEqual(kinds, ["done"] * 100)


def finish_loose(self, i):
    """As finish, without counting tokens from the start."""
    event = self.next()
    while event["type"] not in ("done", "error", "cancelled"):
        event = self.next()
    return event


Client.finish_loose = finish_loose


class Lives(unittest.TestCase):
    """Starts, deaths, and ends: each with a server of its own."""

    def test_queue_is_bounded_at_n_and_refuses_n_plus_one(self):
        with Server(f"m={MODEL}", options=["--workers", "1", "--slots", "1", "--queue", "4"]) as server, \
                Client(server) as client:
            ids = [client.generate(prompt="x", max_tokens=400, ignore_end=True, deadline_ms=60000)
                   for _ in range(6)]
            refused = None
            while not refused:
                event = client.next()
                refused = event if event["type"] == "error" else None
            self.assertEqual((refused["id"], refused["code"], refused["retryable"]), (ids[5], "overloaded", True))
            self.assertGreater(refused["retry_ms"], 0)
            for i in ids[:5]:
                client.send(type="cancel", id=i)
            ended = {}
            while len(ended) < 5:
                event = client.next()
                if event["type"] in ("done", "cancelled", "error"):
                    self.assertNotIn(event["id"], ended)
                    ended[event["id"]] = event["type"]
            self.assertIn("cancelled", ended.values())

    def test_killed_worker_is_forked_again_without_a_reload(self):
        with Server(f"m={MODEL}", options=["--workers", "1", "--slots", "4"]) as server, Client(server) as client:
            worker, = server.workers()
            request = dict(prompt="x", max_tokens=450, ignore_end=True, temperature=1)
            calm = [client.complete(seed=seed, **request) for seed in range(3)]
            ids = [client.generate(seed=seed, **request) for seed in range(3)]
            with Client(server) as other:
                while other.ask("stats")["tokens"] < 3 * 450 + 30:
                    pass
                os.kill(worker, signal.SIGKILL)
                moved = client.finish(*ids)
                self.assertEqual(other.ask("stats")["moved"], 3)
            self.assertEqual([moved[i][1:] for i in ids], [c[1:] for c in calm])
            self.assertEqual(client.complete(prompt="x", max_tokens=4, ignore_end=True)[0]["type"], "done")
            self.assertNotIn(worker, server.workers())
            self.assertEqual(server.log().count("model_loaded"), 1)
            self.assertEqual(server.log().count("worker_forked"), 2)

    def test_a_conversation_goes_on_after_a_restart(self):
        sessions = os.path.join(folder, "sessions")
        more = dict(max_tokens=40, temperature=0.8, seed=3, ignore_end=True)

        def complete(options, tokens, **request):
            with Server(f"m={MODEL}", options=["--workers", "1", *options]) as server, Client(server) as client:
                end, _, ids = client.complete(tokens=tokens, **request, **more)
                self.assertEqual((end["type"], len(ids)), ("done", 40), end)
                return end["cached_tokens"], ids

        prompt = list(range(10, 160))
        cached, answer = complete(["--sessions", sessions], prompt, session="talk-1")
        self.assertEqual(cached, 0)
        file, = os.listdir(sessions)
        self.assertRegex(file, "^m-[0-9a-f]{16}\\.kv$")
        prompt += answer + list(range(200, 220))
        _, without = complete([], prompt, session="talk-1")
        cached, with_session = complete(["--sessions", sessions], prompt, session="talk-1")
        self.assertEqual((cached, with_session), (128, without))  # whole pages of 189
        self.assertEqual(complete(["--sessions", sessions], prompt, session="talk-2")[0], 0)

    def test_second_start_maps_the_packed_weights_of_the_first(self):
        cache = os.path.join(folder, "packed")
        texts = []
        for step in ("packing weights", "reading packed weights"):
            with Server(f"m={MODEL}", options=["--workers", "2", "--pack-cache", cache]) as server, Client(server) as client:
                texts.append(client.complete(prompt="x", max_tokens=20, ignore_end=True)[1])
                if step == "packing weights":  # written when the workers are there, by a process that then ends
                    server.wait_for_log('step="writing packed weights"', count=2)
                    log = server.log()
                    self.assertGreater(log.index('load_began model=m step="writing'), log.rindex("worker_forked"))
                    end = time.monotonic() + seconds(10)
                    while server.processes("woolly: writer"):
                        self.assertLess(time.monotonic(), end)
                        time.sleep(0.01)
                    self.assertEqual(len(server.workers()), 2)
                steps = re.findall('load_ended .*step="([^"]*)"', server.log())
                self.assertEqual(steps[0], step)
                self.assertEqual(server.log().count("load_began"), len(steps))
                for pid in server.workers() if len(steps) == 1 else ():
                    with open(f"/proc/{pid}/maps") as maps:
                        self.assertRegex(maps.read(), "r--s .*/packed/tiny-[0-9a-f]*.woolly-packed")
        self.assertEqual(texts[0], texts[1])

    def test_killed_broker_and_host_come_back(self):
        with Server(f"m={MODEL}", options=["--workers", "1"]) as server:
            for victim in ("woolly: broker", "woolly: host"):
                os.kill(server.processes(victim)[0], signal.SIGKILL)
                end = time.monotonic() + seconds(40)
                while True:
                    try:
                        with Client(server) as client:
                            if client.complete(prompt="x", max_tokens=2)[0]["type"] == "done":
                                break
                    except TimeoutError:
                        pass
                    self.assertLess(time.monotonic(), end, server.log()[-3000:])
                    time.sleep(0.1)

    def test_sigterm_finishes_what_runs_and_leaves_nothing(self):
        server = Server(f"m={MODEL}", options=["--workers", "2"])
        with Client(server) as client:
            i = client.generate(prompt="x", max_tokens=100, ignore_end=True)
            while client.next()["type"] != "tokens":
                pass
            children = server.processes()
            server.process.send_signal(signal.SIGTERM)
            end = client.finish_loose(i)
            self.assertIn(end["type"], ("done", "error"))
            self.assertEqual(server.process.wait(seconds(20)), 0, server.log())
            for child in children:
                self.assertFalse(os.path.exists(f"/proc/{child}"), child)
            left = [os.path.join(base, name) for base, _, names in os.walk(server.folder) for name in names]
            self.assertEqual([p for p in left if p.endswith(".sock") or p.endswith("endpoint")], [])
        server.kill()

    def test_children_die_with_a_killed_supervisor(self):
        server = Server(f"m={MODEL}", options=["--workers", "2"])
        children = server.processes()
        self.assertEqual(len(children), 4)
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + seconds(10)
        while any(os.path.exists(f"/proc/{c}") for c in children) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertFalse([c for c in children if os.path.exists(f"/proc/{c}")])
        server.kill()

    def test_an_instruction_set_that_is_none_stops_the_start_before_the_model_is_read(self):
        os.environ["WOOLLY_ISA"] = "mmx"
        try:
            with self.assertRaises(RuntimeError) as raised:
                Server(f"m={MODEL}")
        finally:
            del os.environ["WOOLLY_ISA"]
        self.assertIn("WOOLLY_ISA is 'mmx'", str(raised.exception))
        self.assertNotIn("load_began", str(raised.exception))

    def test_bad_model_files_stop_the_start_with_one_line(self):
        bad = os.path.join(folder, "bad.gguf")
        with open(MODEL, "rb") as f:
            content = f.read()
        for content_, named in ((content[:5000], "bad.gguf"), (b"GGUF" + struct.pack("<I", 99), "version")):
            with open(bad, "wb") as f:
                f.write(content_)
            with self.assertRaises(RuntimeError) as raised:
                Server(f"m={bad}")
            self.assertIn(named, str(raised.exception))

    def test_a_second_server_cannot_take_the_endpoint_of_the_first(self):
        endpoint = f"ipc://{folder}/shared.sock"
        with Server(f"m={MODEL}", options=["--zmq", endpoint]) as server, Client(server) as client:
            with self.assertRaises(RuntimeError) as raised:
                Server(f"m={MODEL}", options=["--zmq", endpoint])
            self.assertIn("another server", str(raised.exception))
            self.assertEqual(client.ask("ping")["type"], "pong")

    def test_more_connections_than_the_usual_limit_of_files_are_fine(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            server = Server(f"m={MODEL}")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 400), hard))
        with server:
            broker, connections = server.processes("woolly: broker"), []
            try:
                for _ in range(200):
                    connections.append(socket.socket(socket.AF_UNIX))
                    connections[-1].connect(server.endpoint.removeprefix("ipc://"))
                with Client(server) as client:
                    self.assertEqual(client.ask("ping")["type"], "pong")
            finally:
                for connection in connections:
                    connection.close()
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.assertEqual(server.processes("woolly: broker"), broker)

    def test_open_endpoints_are_refused(self):
        with self.assertRaises(RuntimeError) as raised:
            Server(f"m={MODEL}", options=["--zmq", "tcp://0.0.0.0:*"])
        self.assertIn("loopback", str(raised.exception))

    def test_endpoints_that_cannot_be_are_wrong_usage(self):
        for endpoint in ("nonsense", "tcp://0.0.0.0:1", "tcp://127.0.0.1:", "tcp://127.0.0.1:65536",
                         "tcp://127.0.0.1:x", "ipc://", "ipc:///" + "long" * 40, ""):
            done = subprocess.run([WOOLLY, "serve", MODEL, "--zmq", endpoint], capture_output=True, text=True,
                                  timeout=seconds(30))
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
            self.assertIn(f'"{endpoint}"', done.stderr)

    def test_socket_files_are_gone_after_a_clean_stop(self):
        path = os.path.join(folder, "chosen.sock")
        server = Server(f"m={MODEL}", options=["--zmq", "ipc://" + path])
        self.assertTrue(os.path.exists(path))
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_loopback_tcp_and_woolly_stop(self):
        server = Server(f"m={MODEL}", options=["--zmq", "tcp://127.0.0.1:*"])
        with Client(server) as client:
            self.assertEqual(client.ask("ping")["type"], "pong")
        stopped = server.cli("stop", "--endpoint", server.endpoint)
        self.assertEqual(stopped.returncode, 0, stopped.stderr)
        self.assertEqual(server.process.wait(seconds(10)), 0)
        self.assertEqual(server.cli("list", "--endpoint", server.endpoint).returncode, 3)
        server.kill()

    def test_a_client_that_vanishes_frees_its_slot(self):
        with Server(f"m={MODEL}", options=["--workers", "1", "--slots", "1"]) as server:
            client = Client(server)
            client.generate(prompt="x", max_tokens=490, ignore_end=True)
            while client.next()["type"] != "tokens":
                pass
            client.close()
            with Client(server) as other:
                self.assertEqual(other.complete(prompt="x", max_tokens=2)[0]["type"], "done")


class Cores(unittest.TestCase):
    def core_sets(self, *options):
        """Where each worker may run."""
        with Server(f"m={MODEL}", options=options) as server:
            return [os.sched_getaffinity(worker) for worker in server.workers()]

    def setUp(self):
        self.ours = os.sched_getaffinity(0)

    def tearDown(self):
        os.sched_setaffinity(0, self.ours)

    def test_workers_have_cores_of_their_own_where_there_are_enough(self):
        one, other = self.core_sets("--workers", "2", "--threads", "1")
        if len(self.ours) < 2:
            self.skipTest("NOT RUN: there is one core only")
        self.assertEqual((len(one), len(other), len(one | other)), (1, 1, 2))

    def test_nobody_is_pinned_where_cores_are_too_few_or_the_user_wants_none(self):
        threads = str(len(self.ours))
        self.assertEqual(self.core_sets("--workers", "2", "--threads", threads), [self.ours] * 2)
        self.assertEqual(self.core_sets("--workers", "2", "--threads", "1", "--pin", "off"), [self.ours] * 2)

    def test_a_core_set_around_the_server_is_respected(self):
        os.sched_setaffinity(0, {max(self.ours)})
        with Server(f"m={MODEL}") as server:
            worker, = server.workers()
            self.assertEqual(os.sched_getaffinity(worker), {max(self.ours)})
            self.assertIn("threads=1 ", server.log())

    def test_idle_workers_use_no_cpu(self):
        def ticks(process):
            with open(f"/proc/{process}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        with Server(f"m={MODEL}", options=["--workers", "2", "--threads", "4"]) as server, Client(server) as client:
            client.finish(*[client.generate(prompt="to work", max_tokens=50, ignore_end=True) for _ in range(4)])
            time.sleep(0.5)
            before = [ticks(worker) for worker in server.workers()]
            time.sleep(5)
            used = [ticks(worker) - was for worker, was in zip(server.workers(), before)]
            print(f"idle workers: {used} hundredths of a second in 5 s")
            # Their beats, one a second, cost a little; a spinning thread would use 500.
            self.assertLess(max(used), 10 if "san" in BUILD else 3)


class Memory(unittest.TestCase):
    def test_broker_memory_is_flat_from_the_tenth_to_the_thousandth_request(self):
        with Server(f"m={MODEL}", options=["--workers", "2", "--threads", "1"]) as server, Client(server) as client:
            def resident():
                with open(f"/proc/{server.processes('woolly: broker')[0]}/statm") as f:
                    return int(f.read().split()[1]) * 4096

            def batch(n):
                ids = [client.generate(prompt="again and again", max_tokens=8) for _ in range(n)]
                self.assertEqual({client_end[0]["type"] for client_end in client.finish(*ids).values()}, {"done"})

            batch(10)
            tenth = resident()
            for _ in range(99):
                batch(10)
            thousandth = resident()
            for _ in range(100):
                batch(10)
            last = resident()
            print(f"broker: {tenth >> 10} KiB after 10 requests, {thousandth >> 10} after 1,000, {last >> 10} after 2,000")
            if "san" not in BUILD:  # a sanitizer keeps freed memory in quarantine
                # ZeroMQ's pipes reach their full length within the first hundreds of messages; then nothing grows.
                self.assertLess(thousandth - tenth, 512 << 10)
                self.assertLess(last - thousandth, 64 << 10)

    def test_each_more_worker_costs_little_of_the_model(self):
        if "san" in BUILD:
            self.skipTest("NOT RUN: sanitizers have memory of their own")
        big = make_model(os.path.join(folder, "big.gguf"), layers=8, embd=768, heads=12, kv_heads=4, ff=3072,
                         vocab=8192, type="F16")
        size = os.path.getsize(big)
        self.assertGreater(size, 100 << 20)

        def group_pss(workers):
            with Server(f"m={big}", options=["--workers", str(workers), "--threads", "1"]) as server, \
                    Client(server) as client:
                ids = [client.generate(prompt="warm", max_tokens=8, ignore_end=True) for _ in range(workers)]
                client.finish(*ids)
                total = 0
                for pid in server.processes("woolly: host") + server.workers():
                    with open(f"/proc/{pid}/smaps_rollup") as f:
                        total += next(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))
                return total

        one, four = group_pss(1), group_pss(4)
        share = (four - one) / 3 / size
        print(f"model {size >> 20} MiB: 1 worker {one >> 20} MiB, 4 workers {four >> 20} MiB, "
              f"{100 * share:.2f} % of the model per extra worker")
        self.assertLess(share, 0.05)


if __name__ == "__main__":
    unittest.main(verbosity=2)
