"""The whole server under a long row of requests of every kind, from clients that cancel and vanish at random:
each request that its client stays for ends exactly once, nothing is left afterwards, and neither the broker nor
a worker grows. WOOLLY_SOAK_REQUESTS in the environment says how many requests."""
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from server import Client, Server, make_model, processes_of, run_in_threads, seconds  # noqa: E402

N_REQUESTS = int(os.environ.get("WOOLLY_SOAK_REQUESTS", "300"))
N_CLIENTS = 6
SLOTS = 12
GROWTH_KB = 6 << 10  # of a process, after the first tenth
ENDINGS = ("done", "error", "cancelled")

folder = tempfile.mkdtemp(prefix="woolly-model-")


def tearDownModule():
    shutil.rmtree(folder)


def resident_kb(server):
    """Of the broker and the workers together: the largest of each kind."""
    sizes = {}
    for pid, title in processes_of(server.pid).items():
        kind = "worker" if "woolly: worker" in title else "broker" if "woolly: broker" in title else None
        if kind:
            with open(f"/proc/{pid}/statm") as f:
                sizes[kind] = max(sizes.get(kind, 0), int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024)
    return sizes


def random_words(random_, n):
    return " ".join(random_.choice(("the", "mill", "went", "home", "apple", "seven", "Tom")) for _ in range(n))


def random_request(random_):
    """What to send besides id and model, and of which type."""
    prompt = "Once upon a time there was a mill. " * random_.choice((0, 0, 2, 4))
    prompt += random_words(random_, random_.choice((1, 5, 20, 60, 400)))  # the last is too long
    if random_.random() < 0.15:
        return "embed", dict(prompt=prompt, pooling=random_.choice(("mean", "last")))
    request = dict(prompt=prompt, temperature=random_.choice((0, 0.9)), seed=random_.randrange(1000),
                   ignore_end=random_.random() < 0.7, n=random_.choice((1, 1, 1, 2, 3)))
    if random_.random() < 0.8:
        request["max_tokens"] = random_.choice((1, 8, 30, 100))
    if random_.random() < 0.15:
        request["prompt_logprobs"] = random_.randrange(4)
    if random_.random() < 0.3:
        request["logprobs"] = random_.randrange(4)
    if random_.random() < 0.2:
        request["stop"] = ["the", "a b"]
    if random_.random() < 0.2:
        request["cache_salt"] = "mine"
    if random_.random() < 0.1:
        request["session"] = random_.choice(("one", "two", "three"))
    if random_.random() < 0.05:
        request["deadline_ms"] = random_.randrange(1, 50)
    if random_.random() < 0.3:
        request["stream"] = False
        if random_.random() < 0.3:
            request["best_of"] = request["n"] + 1
    return "generate", request


class User:
    """One client after the other; what is live on a connection that was dropped ends unseen."""

    def __init__(self, server, number, counts, lock):
        self.server, self.counts, self.lock = server, counts, lock
        self.random = random.Random(number)
        self.client, self.live, self.ended = Client(server), set(), set()

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def take(self, event):
        i = event["id"]
        assert i in self.live, f"for a request that is not live came {event}"
        if event["type"] in ENDINGS:
            self.live.remove(i)
            self.ended.add(i)
            self.count(event["type"])

    def begin_one(self):
        kind, request = random_request(self.random)
        self.live.add(self.client.send(type=kind, request=dict(request, model="m")))

    def vanish(self):
        for _ in self.live:
            self.count("left behind")
        self.client.close()
        self.client, self.live, self.ended = Client(self.server), set(), set()

    def work(self, n):
        while n or self.live:
            if n and len(self.live) < 6:
                self.begin_one()
                n -= 1
            elif self.random.random() < 0.003:
                self.vanish()
            elif self.live and self.random.random() < 0.05:
                self.client.send(type="cancel", id=self.random.choice(sorted(self.live)))
            else:
                self.take(self.client.next(timeout=120))

    def close(self):
        """Nothing may come any more."""
        with self.client:
            assert not self.client.socket.poll(200) or self.client.next(timeout=5, beats=True)["type"] == "beat"


class Soak(unittest.TestCase):
    def wait_until_idle(self, server):
        """What clients left behind is cancelled soon, and workers tell of it with a beat."""
        with Client(server) as client:
            end = time.monotonic() + seconds(20)
            while True:
                stats = client.ask("stats")
                left = [stats["running"], stats["queued"]] + [w["running"] + w["kv_used"] for w in stats["workers"]]
                if not any(left):
                    return stats
                self.assertLess(time.monotonic(), end, f"this does not come to rest: {stats}")
                time.sleep(0.1)

    def test_nothing_is_left_of_many_requests(self):
        model = make_model(os.path.join(folder, "tiny.gguf"), embd=256, heads=8, kv_heads=4, type="Q8_0")  # few pages in a megabyte
        counts, lock = {}, threading.Lock()
        options = ["--workers", "2", "--threads", "1", "--slots", str(SLOTS), "--kv-memory", "1",
                   "--sessions", os.path.join(folder, "sessions")]
        with Server(f"m={model}", options=options) as server:
            users = [User(server, i, counts, lock) for i in range(N_CLIENTS)]
            first = max(N_REQUESTS // 10 // N_CLIENTS, 1)
            rest = N_REQUESTS // N_CLIENTS - first
            run_in_threads(N_CLIENTS, lambda i: users[i].work(first))
            early = resident_kb(server)
            run_in_threads(N_CLIENTS, lambda i: users[i].work(rest))
            for user in users:
                user.close()
            stats = self.wait_until_idle(server)
            late = resident_kb(server)
            print(f"{counts}; kB early {early}, late {late}; "
                  + str({k: stats[k] for k in ("accepted", "done", "failed", "cancelled", "refused", "tokens")})
                  + str([{k: w[k] for k in ("preempted", "cached_tokens", "kv_pages")} for w in stats["workers"]]))
            self.assertEqual(sum(counts.values()), N_CLIENTS * (first + rest))
            self.assertEqual(stats["accepted"], stats["done"] + stats["failed"] + stats["cancelled"])
            self.assertEqual(len(server.workers()), 2)
            self.assertNotIn("worker_lost", server.log())
            if seconds(1) == 1:  # sanitizers keep what was freed
                for kind in early:
                    self.assertLess(late[kind] - early[kind], GROWTH_KB, kind)


if __name__ == "__main__":
    unittest.main()
