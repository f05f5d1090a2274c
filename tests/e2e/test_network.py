"""A server and a model host on two machines: two network namespaces with a cable between them."""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from server import BUILD, WOOLLY, Client, Server, make_model, seconds

HERE, THERE = f"woolly-a{os.getpid()}", f"woolly-b{os.getpid()}"
CABLE = f"wly{os.getpid()}"
CLIENTS, WORKERS = "tcp://10.77.0.1:7701", "tcp://10.77.0.1:7702"
CUT_S = 10
LISTEN = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 0))
print("listening", flush=True)
with open(sys.argv[2], "wb", buffering=0) as f:
    while True:
        f.write(s.recv(65536))
"""

folder = tempfile.mkdtemp(prefix="woolly-network-")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def inside(namespace):
    return ["ip", "netns", "exec", namespace]


def plug_in(up):
    ip("-n", HERE, "link", "set", CABLE + "a", "up" if up else "down")


def setUpModule():
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise unittest.SkipTest("NOT RUN: two machines: only root can make network namespaces, with iproute2")
    try:
        ip("netns", "add", HERE)
        ip("netns", "add", THERE)
        ip("-n", HERE, "link", "add", CABLE + "a", "type", "veth", "peer", "name", CABLE + "b", "netns", THERE)
        for namespace, end, address in (HERE, "a", "10.77.0.1/24"), (THERE, "b", "10.77.0.2/24"):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "address", "add", address, "dev", CABLE + end)
            ip("-n", namespace, "link", "set", CABLE + end, "up")
    except subprocess.CalledProcessError as failure:
        remove_namespaces()
        raise unittest.SkipTest("NOT RUN: two machines: " + failure.stderr.strip())


def remove_namespaces():
    for namespace in HERE, THERE:
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)


def tearDownModule():
    remove_namespaces()
    shutil.rmtree(folder)


def keygen(name):
    made = subprocess.run([WOOLLY, "keygen", os.path.join(folder, name)], check=True, capture_output=True, text=True)
    return os.path.join(folder, name), made.stdout.strip()


class Host:
    """woolly-worker on the other machine."""

    def __init__(self, model, key, server_key, broker=WORKERS):
        self.log_path = tempfile.mktemp(dir=folder)
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [*inside(THERE), os.path.join(BUILD, "bin", "woolly-worker"), "--model", model, "--broker", broker,
                 "--threads", "1", "--key", key, "--server-key", server_key], stderr=log)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_for_log(self, text, count=1, timeout=20):
        end = time.monotonic() + seconds(timeout)
        while self.log().count(text) < count:
            assert time.monotonic() < end, f"the host's log does not say {text!r}:\n{self.log()[-3000:]}"
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(seconds(10)) == 0
        for word in ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "LeakSanitizer"):
            assert word not in self.log(), self.log()[-6000:]


class Network(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model(os.path.join(folder, "tiny.gguf"))
        cls.server_file, cls.server_key = keygen("server")
        cls.host_file, host_key = keygen("host")
        cls.client_file, client_key = keygen("client")
        cls.stranger_file, _ = keygen("stranger")
        allow = os.path.join(folder, "allow")
        with open(allow, "w") as f:
            f.write(f"worker box {host_key}\nclient laptop {client_key}\n")
        cls.keys = ["--key", cls.server_file, "--allow", allow]
        cls.server = Server(f"m={cls.model}", prefix=inside(HERE),
                            options=["--threads", "1", "--zmq", CLIENTS, "--zmq-workers", WORKERS, *cls.keys])

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def tearDown(self):
        plug_in(True)

    def ask(self, *arguments, namespace=THERE, key=None):
        return self.server.cli(*arguments, "--endpoint", CLIENTS, "--key", key or self.client_file, "--server-key",
                               self.server_key, prefix=inside(namespace))

    def test_a_model_of_another_machine_serves_clients_of_both(self):
        with Host(f"far={self.model}", self.host_file, self.server_key) as host:
            host.wait_for_log("registered")
            for namespace in HERE, THERE:
                near = self.ask("run", "m", "Hello", "-n", "20", namespace=namespace)
                far = self.ask("run", "far", "Hello", "-n", "20", namespace=namespace)
                self.assertEqual((near.returncode, far.returncode), (0, 0), near.stderr + far.stderr)
                self.assertEqual(near.stdout, far.stdout)
        self.server.wait_for_log('why="it said bye"')

    def test_a_host_with_an_unknown_key_is_refused_and_both_logs_say_so(self):
        with Host(f"far={self.model}", self.stranger_file, self.server_key) as host:
            host.wait_for_log("broker_refuses")
            self.server.wait_for_log("key_refused side=worker address=10.77.0.2")
            self.assertNotIn("registered", host.log())

    def test_a_host_that_expects_another_server_does_not_talk_to_this_one(self):
        with Host(f"far={self.model}", self.host_file, keygen("other")[1]) as host:
            host.wait_for_log("broker_refuses")
            self.assertNotIn("registered", host.log())

    def test_the_key_of_a_client_registers_no_host(self):
        with Host(f"far={self.model}", self.client_file, self.server_key) as host:
            host.wait_for_log("broker_refuses")
            self.assertNotIn("registered", host.log())

    def test_a_client_with_an_unknown_key_gets_no_answer(self):
        answer = self.ask("list", key=self.stranger_file)
        self.assertEqual(answer.returncode, 3)
        self.assertIn("key", answer.stderr)

    def test_another_model_under_a_known_name_is_refused(self):
        other = make_model(os.path.join(folder, "other.gguf"), vocab=600)
        with Host(f"m={other}", self.host_file, self.server_key) as host:
            host.wait_for_log("registration_refused")
            self.assertEqual(self.ask("run", "m", "Hello", "-n", "5").returncode, 0)

    def test_nothing_of_a_prompt_can_be_read_on_the_cable(self):
        dump = os.path.join(folder, "dump")
        listener = subprocess.Popen([*inside(HERE), sys.executable, "-c", LISTEN, CABLE + "a", dump],
                                    stdout=subprocess.PIPE)
        listener.stdout.readline()
        self.assertEqual(self.ask("run", "m", "a word nobody guesses", "-n", "5").returncode, 0)
        time.sleep(seconds(0.5))
        listener.terminate()
        listener.wait()
        listener.stdout.close()
        with open(dump, "rb") as f:
            heard = f.read()
        self.assertGreater(len(heard), 500)
        self.assertNotIn(b"nobody guesses", heard)

    def test_a_cut_cable_loses_no_request(self):
        """Clients of the server's own machine; their requests run on both."""
        endpoint = "tcp://10.77.0.1:7703"
        request = dict(prompt="Once", max_tokens=400, ignore_end=True, temperature=1, seed=7)
        with Server(f"m={self.model}", prefix=inside(HERE),
                    options=["--threads", "1", "--zmq-workers", endpoint, *self.keys]) as server, \
                Host(f"m={self.model}", self.host_file, self.server_key, broker=endpoint) as host, \
                Client(server) as client:
            host.wait_for_log("registered")
            calm = client.complete(**request)
            self.assertEqual(calm[0]["type"], "done")
            begin, is_cut, n = time.monotonic(), False, 0
            while time.monotonic() < begin + seconds(1) + CUT_S or not n:
                ids = [client.generate(**request) for _ in range(14)]  # more than either worker has slots
                if not is_cut:
                    plug_in(False)
                    is_cut = True
                for end, text, tokens in client.finish(*ids, timeout=40).values():
                    self.assertEqual((end["type"], text), ("done", calm[1]), end)
                    n += 1
            self.assertIn("broker_lost", host.log())
            plug_in(True)
            host.wait_for_log("registered", count=2)
            server.wait_for_log("worker_registered worker=m.0", count=3)
            self.assertEqual(client.complete(**request)[1], calm[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
