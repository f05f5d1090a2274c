"""Starts `woolly serve` for a test, in a runtime folder of its own, and talks to it in the protocol's words."""
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import msgpack
import zmq

BUILD = os.environ["WOOLLY_BUILD"]
WOOLLY = os.path.join(BUILD, "bin", "woolly")
SLOW = float(os.environ.get("WOOLLY_SLOW", "1"))  # sanitizers stretch every wait


def seconds(s):
    return s * SLOW


def make_model(path, **options):
    defaults = dict(layers=2, embd=64, heads=4, kv_heads=2, ff=128, vocab=512, ctx=512, type="F32", seed=1)
    defaults.update(options)
    command = [os.path.join(BUILD, "tests", "make_gguf"), "--out", path]
    for name, value in defaults.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def processes_of(pid):
    """Every living descendant of pid: {pid: title}."""
    parents, titles = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    stat = f.read()
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    titles[int(entry)] = f.read().rstrip(b"\0").replace(b"\0", b" ").decode()
            except OSError:
                continue
            fields = stat[stat.rindex(")") + 2:].split()
            if fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
    found, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return {p: titles.get(p, "") for p in found if p in parents and p != pid}


class Server:
    def __init__(self, *models, options=(), ready_in=60, prefix=(), environment=None):
        self.folder = tempfile.mkdtemp(prefix="woolly-e2e-")
        self.env = dict(os.environ, WOOLLY_RUNTIME_DIR=self.folder)
        self.env.update(environment or {})
        self.env.pop("WOOLLY_ENDPOINT", None)
        command = [*prefix, WOOLLY, "serve"]
        for model in models:
            command += ["--model", model]
        self.log_path = os.path.join(self.folder, "log")
        self.log_file = open(self.log_path, "w")
        self.process = subprocess.Popen(command + list(options), env=self.env, stdout=subprocess.PIPE,
                                        stderr=self.log_file, text=True)
        self.pid = self.process.pid
        ready, _, _ = select.select([self.process.stdout], [], [], seconds(ready_in))
        self.ready_line = self.process.stdout.readline() if ready else ""
        match = re.search(r"ready at (\S+)", self.ready_line)
        if not match:
            self.process.kill()
            self.process.wait()
            log = self.log()
            self.kill()
            raise RuntimeError("the server did not get ready:\n" + log)
        self.endpoint = match.group(1).rstrip(",:")

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_for_log(self, text, count=1, timeout=10):
        end = time.monotonic() + seconds(timeout)
        while self.log().count(text) < count:
            if time.monotonic() > end:
                raise AssertionError(f"the log does not say {text!r} {count} times:\n{self.log()[-3000:]}")
            time.sleep(0.01)

    def processes(self, title=""):
        return [p for p, t in processes_of(self.pid).items() if title in t]

    def workers(self):
        return self.processes("woolly: worker")

    def cli(self, *arguments, prefix=(), **options):
        return subprocess.run([*prefix, WOOLLY, *arguments], env=self.env, capture_output=True, text=True,
                              timeout=seconds(60), **options)

    def stop(self, timeout=20):
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds(timeout))
        finally:
            self.kill()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log_file.close()
        # A sanitizer's report goes to the log of the process that made it: a test must not pass over it.
        text = self.log()
        shutil.rmtree(self.folder, ignore_errors=True)
        for word in ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "LeakSanitizer"):
            assert word not in text, text[-6000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Client:
    """One DEALER connection. Events of all its requests come out of next()."""
    context = zmq.Context.instance()

    def __init__(self, server_or_endpoint, kind=zmq.DEALER):
        self.socket = self.context.socket(kind)
        self.socket.linger = 0
        self.socket.connect(getattr(server_or_endpoint, "endpoint", server_or_endpoint))
        self.last_id = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, **message):
        if "id" not in message:
            self.last_id += 1
            message["id"] = self.last_id
        self.socket.send(msgpack.packb(dict(message, v=message.get("v", 1))))
        return message["id"]

    def generate(self, model="m", **request):
        return self.send(type="generate", request=dict(request, model=model))

    def next(self, timeout=30, beats=False):
        end = time.monotonic() + seconds(timeout)
        while True:
            left = max(0, end - time.monotonic())
            if not self.socket.poll(left * 1000):
                raise TimeoutError("nothing came from the broker")
            message = msgpack.unpackb(self.socket.recv())
            if beats or message["type"] != "beat":
                return message

    def ask(self, kind, **more):
        self.send(type=kind, **more)
        return self.next()

    def finish(self, *ids, timeout=60):
        """Reads until each of ids has ended: {id: (last event, text, token ids)}."""
        ends, texts, tokens = {}, {i: "" for i in ids}, {i: [] for i in ids}
        while len(ends) < len(ids):
            event = self.next(timeout)
            i = event["id"]
            if i not in texts:
                continue
            assert i not in ends, f"request {i} ended and then came {event}"
            if event["type"] == "tokens":
                assert event["seq"] == len(tokens[i])
                texts[i] += event["text"]
                tokens[i] += event["ids"]
            elif event["type"] in ("done", "error", "cancelled"):
                ends[i] = event
        return {i: (ends[i], texts[i], tokens[i]) for i in ids}

    def complete(self, model="m", **request):
        i = self.generate(model, **request)
        return self.finish(i)[i]


def run_in_threads(n, work):
    """work(i) in n threads; raises the first failure."""
    failures = []

    def body(i):
        try:
            work(i)
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]
