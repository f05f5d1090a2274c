"""`woolly run` with a server of its own, at a terminal, and against a server that means harm."""
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import msgpack
import zmq

from server import WOOLLY, make_model, processes_of, seconds

folder = tempfile.mkdtemp(prefix="woolly-model-")
TINY = make_model(os.path.join(folder, "tiny model.gguf"))
SLOW = make_model(os.path.join(folder, "slow.gguf"), layers=8, embd=512, heads=8, ff=2048, ctx=16384)


def tearDownModule():
    shutil.rmtree(folder)


class Terminal:
    """A program with a terminal for standard output and error."""

    def __init__(self, *command, env):
        try:
            self.pid, self.fd = pty.fork()
        except OSError:
            raise unittest.SkipTest("NOT RUN: no pseudo-terminals here")
        if self.pid == 0:
            os.execve(command[0], command, env)
        self.output = ""

    def wait_for(self, *texts, timeout=30):
        """Reads until one of the texts, or without any until the end: the exit status."""
        end = time.monotonic() + seconds(timeout)
        while not any(t in self.output for t in texts):
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"{texts} did not come: {self.output[-2000:]!r}")
            try:
                self.output += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # nobody holds the terminal any more
                break
        if not texts:
            os.close(self.fd)
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_for_more(self, n):
        n += len(self.output)
        while len(self.output) < n:
            self.output += os.read(self.fd, 65536).decode(errors="replace")

    def press(self, key):
        os.write(self.fd, key)


class Own(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="woolly-tmp-")
        self.env = dict(os.environ, TMPDIR=self.tmp, WOOLLY_RUNTIME_DIR=os.path.join(self.tmp, "runtime"))
        self.env.pop("WOOLLY_ENDPOINT", None)

    def tearDown(self):
        self.assertEqual([n for n in os.listdir(self.tmp) if n.startswith("woolly-run")], [])
        for entry in os.listdir("/proc"):  # its processes name the folder or are gone
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/environ", "rb") as f:
                        self.assertNotIn(self.tmp.encode(), f.read(), entry)
                except OSError:
                    pass
        shutil.rmtree(self.tmp)

    def run_woolly(self, *arguments):
        return subprocess.run([WOOLLY, "run", *arguments], env=self.env, capture_output=True, text=True,
                              timeout=seconds(60))

    def test_path_starts_a_server_and_leaves_nothing(self):
        first = self.run_woolly(TINY, "Once", "-n", "8", "--json")
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        answer = json.loads(first.stdout)
        self.assertEqual((answer["model"], len(answer["tokens"])), ("tiny_model", answer["completion_tokens"]))
        again = self.run_woolly(TINY, "Once", "-n", "8")
        self.assertEqual((again.returncode, again.stdout), (0, answer["text"]))

    def test_bad_file_is_named_in_one_line(self):
        bad = os.path.join(self.tmp, "bad.gguf")
        with open(bad, "wb") as f:
            f.write(b"GGUF" + b"\xff" * 100)
        failed = self.run_woolly(bad, "x")
        self.assertEqual((failed.returncode, failed.stdout, failed.stderr.count("\n")), (1, "", 1), failed.stderr)
        self.assertIn("bad.gguf", failed.stderr)
        self.assertEqual(self.run_woolly(os.path.join(self.tmp, "none.gguf"), "x").returncode, 1)

    def test_name_without_a_server_is_unreachable(self):
        failed = self.run_woolly("some-model", "x")
        self.assertEqual(failed.returncode, 3)
        self.assertIn("woolly serve", failed.stderr)

    def test_interrupt_at_a_terminal_cancels_and_cleans_up(self):
        t = Terminal(WOOLLY, "run", SLOW, "Once upon a time", "-n", "4000", env=self.env)
        t.wait_for("loading")
        t.wait_for_more(300)  # text comes
        t.press(b"\x03")
        self.assertEqual(t.wait_for(), 1)
        self.assertIn("cancelled", t.output)

    def test_interrupt_while_loading_cleans_up(self):
        t = Terminal(WOOLLY, "run", SLOW, "x", env=self.env)
        t.wait_for("loading")
        t.press(b"\x03")
        self.assertEqual(t.wait_for(), 1)

    def test_killed_run_takes_its_server_with_it(self):
        run = subprocess.Popen([WOOLLY, "run", SLOW, "x", "-n", "4000"], env=self.env, stdout=subprocess.PIPE)
        run.stdout.read(1)
        children = processes_of(run.pid)
        self.assertTrue(any("worker" in title for title in children.values()), children)
        run.kill()
        run.wait()
        run.stdout.close()
        end = time.monotonic() + seconds(10)
        while any(os.path.exists(f"/proc/{c}") for c in children) and time.monotonic() < end:
            time.sleep(0.02)
        for name in os.listdir(self.tmp):  # the one case where a folder stays
            shutil.rmtree(os.path.join(self.tmp, name))
        self.assertEqual([c for c in children if os.path.exists(f"/proc/{c}")], [])


class Help(unittest.TestCase):
    def test_every_program_tells_its_version_and_its_options(self):
        programs = [os.path.join(os.path.dirname(WOOLLY), name)
                    for name in ("woolly", "woolly-broker", "woolly-worker", "woolly-gguf")]
        for program in programs:
            done = subprocess.run([program, "--version"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), program)
            self.assertRegex(done.stdout, rf"^{os.path.basename(program)} \d+\.\d+\.\d+\n$")
        for command in [[program] for program in programs] + [[WOOLLY, "serve"], [WOOLLY, "run"]]:
            texts = [subprocess.run([*command, option], capture_output=True, text=True) for option in ("-h", "--help")]
            self.assertEqual([(t.returncode, t.stderr) for t in texts], [(0, ""), (0, "")], command)
            self.assertEqual(texts[0].stdout, texts[1].stdout)
            self.assertRegex(texts[0].stdout, "[Uu]sage:\\s+woolly")


class Sessions(unittest.TestCase):
    GGUF = os.path.join(os.path.dirname(WOOLLY), "woolly-gguf")

    def generate(self, text, *options):
        done = subprocess.run([self.GGUF, "generate", TINY, "-p", text, "-n", "80", "--json", *options],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        return answer["cached_tokens"], answer["tokens"]

    def test_a_text_goes_on_from_its_session_file(self):
        file, text = os.path.join(folder, "talk.kv"), "Tom had seven apples. " * 8
        without = self.generate(text)
        self.assertEqual(self.generate(text, "--session", file), without)
        cached, tokens = self.generate(text, "--session", file)
        self.assertGreaterEqual(cached, 64)
        self.assertEqual((cached % 64, tokens), (0, without[1]))
        self.assertEqual(self.generate("Ann" + text, "--session", file)[0], 0)

    def test_a_file_that_is_no_session_is_left_alone(self):
        file = os.path.join(folder, "precious")
        with open(file, "w") as f:
            f.write("a letter")
        done = subprocess.run([self.GGUF, "generate", TINY, "-p", "x" * 300, "--session", file],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("precious", done.stderr)
        with open(file) as f:
            self.assertEqual(f.read(), "a letter")


class Hostile(unittest.TestCase):
    """A server whose every text tries to take over the terminal."""
    EVIL = "ok\x1b]0;title\x07\x1b[2J\u009b1m\u202e!\r\n\tend"

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="woolly-hostile-")
        self.endpoint = f"ipc://{self.folder}/s"
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(self.endpoint)
        self.is_stopping = False
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def tearDown(self):
        self.is_stopping = True
        self.thread.join()
        self.socket.close()
        shutil.rmtree(self.folder)

    def serve(self):
        while not self.is_stopping:
            if not self.socket.poll(20):
                continue
            peer, body = self.socket.recv_multipart()
            message = msgpack.unpackb(body)
            for answer in self.answers(message):
                self.socket.send_multipart([peer, msgpack.packb({"v": 1, "id": message["id"], "epoch": 1, **answer})])

    def answers(self, message):
        row = dict(name=self.EVIL, state=self.EVIL, path="", architecture="", workers=1, slots=1, running=0, queued=0)
        timing = dict(queue_ms=0.0, ttft_ms=0.0, total_ms=0.0, tok_s=0.0)
        if message["type"] == "generate" and message["request"]["model"] == "evil":
            return [dict(type="accepted", job=1, seed=1, queue_position=0),
                    dict(type="tokens", seq=0, ids=[1], text=self.EVIL),
                    dict(type="done", finish_reason="stop", prompt_tokens=1, completion_tokens=1, cached_tokens=0, seed=1,
                         timing=timing)]
        if message["type"] == "generate":
            return [dict(type="error", code=self.EVIL, message=self.EVIL, retryable=False)]
        return {"ping": [dict(type="pong")], "models": [dict(type="models", models=[row])],
                "health": [dict(type="health", ready=True, status="ok", pid=os.getpid(), version="1")]}[message["type"]]

    def at_terminal(self, *arguments):
        t = Terminal(WOOLLY, *arguments, "--endpoint", self.endpoint, env=dict(os.environ))
        status = t.wait_for()
        for code in "\x1b\x07\u009b\u202e":
            self.assertNotIn(code, t.output.replace("\x1b[K", ""))
        return status, t.output

    def test_terminal_is_safe_from_text_names_and_errors(self):
        status, output = self.at_terminal("run", "evil", "x")
        self.assertEqual(status, 0)
        self.assertIn("\n\tend", output.replace("\r", ""))
        self.assertEqual(self.at_terminal("run", "other", "x")[0], 1)
        status, output = self.at_terminal("list")
        self.assertEqual((status, output.count("\n")), (0, 2))

    def test_pipe_gets_the_text_as_it_is(self):
        done = subprocess.run([WOOLLY, "run", "evil", "x", "--endpoint", self.endpoint], capture_output=True)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, self.EVIL))

    def test_stop_refuses_a_process_that_is_no_server(self):
        done = subprocess.run([WOOLLY, "stop", "--endpoint", self.endpoint], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(os.getpid()), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
