"""What a server's processes give away, who may talk to it, and its settings."""
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import unittest

from server import BUILD, WOOLLY, Client, Server, make_model, processes_of

folder = tempfile.mkdtemp(prefix="woolly-security-")
MODEL = make_model(os.path.join(folder, "tiny.gguf"))
FAST = ("--threads", "1")


def tearDownModule():
    shutil.rmtree(folder)


def write(name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def serve(*options, **environment):
    """What `woolly serve` says and ends with."""
    with tempfile.TemporaryDirectory() as runtime:
        env = dict(os.environ, WOOLLY_RUNTIME_DIR=runtime, **environment)
        return subprocess.run([WOOLLY, "serve", *options], env=env, capture_output=True, text=True, timeout=60)


def keygen(name):
    path = os.path.join(folder, name)
    made = subprocess.run([WOOLLY, "keygen", path], check=True, capture_output=True, text=True)
    return path, made.stdout.strip()


def facts_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


class Processes(unittest.TestCase):
    def test_workers_can_do_little_and_nobody_leaves_a_core_file(self):
        with Server(f"m={MODEL}", options=FAST) as server, Client(server) as client:
            self.assertEqual(client.complete(prompt="x", max_tokens=3)[0]["type"], "done")
            for pid in [server.pid, *processes_of(server.pid)]:
                self.assertEqual(facts_of(pid)["NoNewPrivs"], "1")
                self.assertEqual(facts_of(pid)["Umask"], "0077")
                with open(f"/proc/{pid}/limits") as f:
                    self.assertEqual(next(line.split()[4] for line in f if line.startswith("Max core")), "0")
            for pid in server.workers():
                if "filter=off" in server.log():
                    self.skipTest("NOT RUN: sandbox of workers: this build has none")
                self.assertEqual(facts_of(pid)["Seccomp"], "2")

    def test_folders_and_sockets_are_for_their_owner(self):
        with Server(f"m={MODEL}", options=FAST) as server:
            for path, folders, files in os.walk(server.folder):
                for name in folders + files:
                    if name != "log":  # this test's
                        mode = stat.S_IMODE(os.lstat(os.path.join(path, name)).st_mode)
                        self.assertEqual(mode & 0o077, 0, name)

    def test_keys_are_in_no_title_and_no_log(self):
        file, public = keygen("titles")
        with open(file) as f:
            secret = f.read().split("secret ")[1].strip()
        allow = write("allow-titles", f"client me {public}\n")
        with Server(f"m={MODEL}", options=[*FAST, "--log-level", "debug", "--zmq", "tcp://127.0.0.1:*", "--key", file,
                                           "--allow", allow]) as server:
            answer = server.cli("list", "--endpoint", server.endpoint, "--key", file, "--server-key", public)
            self.assertEqual(answer.returncode, 0, answer.stderr)
            self.assertNotIn(secret, " ".join(processes_of(server.pid).values()))
            self.assertNotIn(secret, server.log())


class Reach(unittest.TestCase):
    def test_a_server_is_not_open_to_the_network_by_accident(self):
        for option in "--zmq", "--zmq-workers":
            end = serve(f"m={MODEL}", option, "tcp://0.0.0.0:1234")
            self.assertEqual(end.returncode, 2)
            self.assertIn("--insecure", end.stderr)
        end = serve(f"m={MODEL}", "--zmq", "tcp://0.0.0.0:1234", "--key", keygen("alone")[0])
        self.assertEqual(end.returncode, 2)
        self.assertIn("--allow", end.stderr)

    def test_insecure_says_so_and_serves(self):
        with Server(f"m={MODEL}", options=[*FAST, "--zmq", "tcp://0.0.0.0:*", "--insecure"]) as server:
            endpoint = server.endpoint.replace("0.0.0.0", "127.0.0.1")
            self.assertEqual(server.cli("list", "--endpoint", endpoint).returncode, 0)

    def test_a_hang_up_signal_reads_the_keys_again(self):
        server_file, server_key = keygen("reload-server")
        first, first_key = keygen("reload-first")
        second, second_key = keygen("reload-second")
        allow = write("allow-reload", f"client first {first_key}\n")
        with Server(f"m={MODEL}", options=[*FAST, "--zmq", "tcp://127.0.0.1:*", "--key", server_file, "--allow",
                                           allow]) as server:
            def status(key):
                return server.cli("list", "--endpoint", server.endpoint, "--key", key, "--server-key",
                                  server_key).returncode
            self.assertEqual((status(first), status(second)), (0, 3))
            write("allow-reload", "client nonsense\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for_log("reload_failed")
            self.assertEqual((status(first), status(second)), (0, 3))
            write("allow-reload", f"client second {second_key}\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for_log("reloaded")
            self.assertEqual((status(first), status(second)), (3, 0))


class Settings(unittest.TestCase):
    def test_the_example_is_good_as_it_stands(self):
        path = os.path.join(os.environ["WOOLLY_SOURCE"], "deploy", "woolly.yaml")
        with open(path) as f:
            text = f.read()
        self.assertEqual(serve("--check", "--config", write("example.yaml", text), f"m={MODEL}").returncode, 0)
        # And so it is with everything uncommented, but for the files it names.
        full = "\n".join(line.replace("#", "", 1) if line.startswith("  #") and ": " in line and line[3] != " "
                         else line for line in text.splitlines())
        end = serve("--check", "--config", write("full.yaml", full), f"m={MODEL}")
        self.assertIn("contradict", end.stderr)
        end = serve("--check", "--config", write("full.yaml", full.replace("insecure: on", "insecure: off")),
                    f"m={MODEL}")
        self.assertIn("key", end.stderr)
        self.assertEqual(end.returncode, 1, end.stderr)

    def test_a_server_starts_from_a_file_and_reads_the_log_level_again(self):
        text = f"models:\n  - path: {MODEL}\n    name: filed\nengine:\n  threads: 1\n  slots: 3\nserver:\n  log-level: "
        path = write("start.yaml", text + "info\n")
        with Server(options=["--config", path], environment={"WOOLLY_SERVE_SLOTS": "5"}) as server, \
                Client(server) as client:
            model = client.ask("models")["models"][0]
            self.assertEqual((model["name"], model["slots"]), ("filed", 5))
            write("start.yaml", text + "debug\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for_log("reloaded log_level=debug")

    def test_check_says_what_is_wrong_and_starts_nothing(self):
        end = serve("--check", f"m={MODEL}")
        self.assertEqual((end.returncode, end.stderr), (0, ""))
        self.assertIn("good", end.stdout)
        path = write("bad.yaml", "models:\n  - path: /none.gguf\nengine:\n  threads: many\n")
        end = serve("--check", "--config", path)
        self.assertEqual(end.returncode, 2)
        self.assertIn(f"{path}:4: engine: threads", end.stderr)
        path = write("bad.yaml", "models:\n  - path: /none.gguf\n")
        end = serve("--check", "--config", path)
        self.assertEqual(end.returncode, 1)
        self.assertIn("/none.gguf", end.stderr)


if __name__ == "__main__":
    assert os.path.isdir(BUILD)
    unittest.main(verbosity=2)
