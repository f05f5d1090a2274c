"""Clients in other languages, written from PROTOCOL.md alone, and a C program against the installed library."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import msgpack

from server import BUILD, Server, make_model, seconds

SOURCE = os.environ["WOOLLY_SOURCE"]
CLIENTS = os.path.join(SOURCE, "tests", "clients")


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="woolly-clients-")
        model = make_model(os.path.join(cls.folder, "tiny.gguf"))
        cls.server = Server(f"m={model}", options=["--workers", "1", "--zmq", "tcp://127.0.0.1:*"])
        cls.expected = cls.server.cli("run", "m", "Once upon a time", "-n", "24", "--endpoint", cls.server.endpoint).stdout

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.folder)

    def check(self, command, **options):
        done = subprocess.run([*command, self.server.endpoint, "m", "Once upon a time", "24"], capture_output=True,
                              text=True, timeout=seconds(60), **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        text, last = done.stdout.rstrip("\n").rsplit("\n", 1)
        self.assertEqual(text.strip(), self.expected.strip())
        self.assertRegex(last, r"(length|stop).*\d+ tokens")

    def test_python_client_streams(self):
        self.check(["/usr/bin/python3", os.path.join(CLIENTS, "client.py")])

    def test_node_client_streams(self):
        if not shutil.which("node") or not shutil.which("npm"):
            self.skipTest("NOT RUN: no node and npm")
        work = os.path.join(BUILD, "node-client")
        os.makedirs(work, exist_ok=True)
        for name in ("client.js", "package.json"):
            shutil.copy(os.path.join(CLIENTS, name), work)
        if not os.path.exists(os.path.join(work, "node_modules", "zeromq")):
            install = subprocess.run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=0"], cwd=work,
                                     capture_output=True, text=True)
            if install.returncode:
                shutil.rmtree(os.path.join(work, "node_modules"), ignore_errors=True)
                self.skipTest("NOT RUN: zeromq.js cannot be installed here: " + install.stderr[-200:])
        self.check(["node", os.path.join(work, "client.js")])

    def test_worked_exchange_in_the_protocol_is_true(self):
        with open(os.path.join(SOURCE, "proto", "PROTOCOL.md")) as f:
            text = f.read()
        text = text[text.index("A worked exchange"):text.index("## 7")]
        told = [json.loads(re.sub(r"(\w+): ", r'"\1": ', m)) for m in re.findall(r"`(\{v: [^`]*\})`", text)]
        hexes = re.findall(r"(?:^    [0-9a-f ]+\n)+", text, re.M)
        self.assertEqual([msgpack.unpackb(bytes.fromhex(h)) for h in hexes], told)
        self.assertEqual(len(told), 4)

    def test_both_clients_are_short(self):
        for name in ("client.py", "client.js"):
            with open(os.path.join(CLIENTS, name)) as f:
                self.assertLess(len(f.readlines()), 60, name)

    def test_installed_library_serves_a_c_program(self):
        done = subprocess.run([os.path.join(CLIENTS, "install.sh"), BUILD, self.server.endpoint, "m"],
                              capture_output=True, text=True, timeout=seconds(120))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
