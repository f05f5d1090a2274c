"""Workers that die, hang and crawl while they are busy: every stream ends, and every text is what it would have
been. A script with a seed does it; WOOLLY_CHAOS_SECONDS in the environment says for how long."""
import os
import random
import re
import signal
import statistics
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from server import Client, Server, processes_of, run_in_threads, seconds  # noqa: E402

SECONDS = float(os.environ.get("WOOLLY_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("WOOLLY_CHAOS_SEED", "1"))
MODEL = os.path.join(os.environ["WOOLLY_SOURCE"], "deploy", "models", "woolhill-chat.gguf")
CLIENTS, STREAMS = 8, 8  # streams at once of each client
GROWTH_KB = 8 << 10      # of the broker, between the first quarter and the end
WORDS = ("the", "mill", "went", "home", "apple", "seven", "Tom", "a", "river", "and", "\u00e9t\u00e9")


def make_request(number):
    """Of many kinds; what comes of one depends on its number alone."""
    r = random.Random(number)
    request = dict(prompt=" ".join(r.choice(WORDS) for _ in range(r.choice((3, 20, 120)))), seed=number,
                   temperature=r.choice((0, 0.9, 1.3)), max_tokens=r.choice((40, 150, 300)),
                   ignore_end=r.random() < 0.7, n=r.choice((1, 1, 1, 1, 3)))
    if r.random() < 0.3:
        request["stop"] = [r.choice(WORDS) + " " + r.choice(WORDS), "and then"]
    if r.random() < 0.3:
        request["logprobs"] = 2
    if r.random() < 0.1:
        request["prompt_logprobs"] = 1
    if r.random() < 0.3:
        request["stream"] = False
        request["best_of"] = request["n"] + r.choice((0, 2))
    return request


class Answer:
    """All that a client is told, in a form that does not show how it was cut into messages."""

    def __init__(self, n):
        self.choices = [dict(ids=[], text="", logprobs=[], end=None) for _ in range(n)]
        self.prompt, self.end = [], None

    def take(self, event):
        if event["type"] == "tokens":
            c = self.choices[event.get("choice", 0)]
            assert c["end"] is None and event["seq"] == len(c["ids"]), event
            c["ids"] += event["ids"]
            c["text"] += event["text"]
            c["logprobs"] += event.get("logprobs", [])
            c["end"] = event.get("finish_reason")
            self.prompt += event.get("prompt_logprobs", [])
        elif event["type"] != "accepted":
            assert self.end is None
            changing = ("timing", "epoch", "id", "cached_tokens", "cache_miss")
            self.end = {k: v for k, v in event.items() if k not in changing}

    def same_as(self, other):
        return (self.choices, self.prompt, self.end) == (other.choices, other.prompt, other.end)


class Streams:
    """One connection with several streams, each of which begins anew when it has ended."""

    def __init__(self, server, numbers):
        self.client, self.numbers, self.live = Client(server), list(numbers), {}

    def begin(self, number):
        request = make_request(number)
        self.live[self.client.generate(**request)] = (number, Answer(request["n"]))

    def next_ended(self):
        while True:
            event = self.client.next(timeout=60)
            number, answer = self.live[event["id"]]
            answer.take(event)
            if answer.end:
                del self.live[event["id"]]
                return number, answer

    def run_once(self):
        """{number: answer}"""
        with self.client:
            for number in self.numbers:
                self.begin(number)
            return dict(self.next_ended() for _ in self.numbers)


class Faults(threading.Thread):
    """What happens to workers, until `end`."""

    def __init__(self, server, end, mean_pause):
        super().__init__()
        self.server, self.end, self.mean_pause = server, end, mean_pause
        self.random, self.counts, self.failure = random.Random(SEED), {}, None

    def hurt(self, pid, what):
        os.kill(pid, {"kill": signal.SIGKILL, "abort": signal.SIGABRT}.get(what, signal.SIGSTOP))
        if what == "pause":
            time.sleep(self.random.uniform(0.05, 0.8))
            os.kill(pid, signal.SIGCONT)
        self.counts[what] = self.counts.get(what, 0) + 1

    def run(self):
        try:
            while time.monotonic() < self.end:
                time.sleep(self.random.uniform(0.2, 2 * self.mean_pause - 0.2))
                workers = self.server.workers()
                what = self.random.choice(("kill", "kill", "abort", "stop", "pause", "pause"))
                if workers:
                    try:
                        self.hurt(self.random.choice(sorted(workers)), what)
                    except ProcessLookupError:
                        pass
        except BaseException as failure:  # noqa: BLE001
            self.failure = failure


def resident_kb(server, title):
    """Of the largest such process."""
    sizes = [0]
    for pid, text in processes_of(server.pid).items():
        if title in text:
            with open(f"/proc/{pid}/statm") as f:
                sizes.append(int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024)
    return max(sizes)


class Chaos(unittest.TestCase):
    def calm_answers(self, server):
        answers = {}

        def work(i):
            answers.update(Streams(server, range(i, CLIENTS * STREAMS, CLIENTS)).run_once())

        run_in_threads(CLIENTS, work)
        for number, answer in answers.items():
            self.assertEqual(answer.end["type"], "done", (make_request(number), answer.end))
        return answers

    def check(self, server, expected, answered):
        """answered: (number, answer)"""
        number, answer = answered
        if not answer.same_as(expected[number]):
            raise AssertionError(f"request {number} {make_request(number)} became\n{vars(answer)}\ninstead of\n"
                                 f"{vars(expected[number])}\n{server.log()[-3000:]}")

    def test_every_text_is_what_it_would_have_been(self):
        options = ["--workers", "3", "--threads", "1", "--slots", "24", "--stall", "5000"]
        with Server(f"m={MODEL}", options=options) as server:
            expected = self.calm_answers(server)
            end, done, lock = time.monotonic() + SECONDS, [0], threading.Lock()
            # Sanitizers make recoveries long, and a request is to blame whose every worker is killed before its token.
            faults = Faults(server, end, mean_pause=min(2, SECONDS / 15) if seconds(1) == 1 else SECONDS / 5)
            sizes = []

            def work(i):
                streams = Streams(server, range(i, CLIENTS * STREAMS, CLIENTS))
                for number in streams.numbers:
                    streams.begin(number)
                while streams.live:
                    answered = streams.next_ended()
                    self.check(server, expected, answered)
                    with lock:
                        done[0] += 1
                    if time.monotonic() < end:
                        streams.begin(answered[0])
                    if i == 0 and len(sizes) == 0 and time.monotonic() > end - SECONDS * 3 / 4:
                        sizes.append(resident_kb(server, "woolly: broker"))
                streams.client.close()

            faults.start()
            run_in_threads(CLIENTS, work)
            faults.join()
            if faults.failure:
                raise faults.failure
            sizes.append(resident_kb(server, "woolly: broker"))
            with Client(server) as client:
                stats = client.ask("stats")
            log = server.log()
            resumed = [float(ms) for ms in re.findall(r"job_resumed .*ms=([0-9.]+)", log)]
            print(f"{done[0]} answers, {faults.counts}, {stats['moved']} requests moved; first token of a moved one after "
                  f"ms: median {statistics.median(resumed or [0]):.1f}, 90 % {sorted(resumed or [0])[len(resumed) * 9 // 10]:.1f}, "
                  f"most {max(resumed or [0]):.1f}; broker kB {sizes}")
            self.assertEqual((stats["failed"], stats["running"], stats["queued"]), (0, 0, 0))
            self.assertEqual(stats["done"], done[0] + CLIENTS * STREAMS)
            self.assertGreater(stats["moved"], 0)
            self.assertEqual(log.count("model_loaded"), 1)
            if seconds(1) == 1 and len(sizes) == 2:  # sanitizers keep what was freed
                self.assertLess(sizes[1] - sizes[0], GROWTH_KB)


if __name__ == "__main__":
    unittest.main()
