#!/usr/bin/python3
"""A Woolly client: client.py ENDPOINT MODEL PROMPT [MAX_TOKENS] [--cancel]

Prints the text as it comes; the last line has the finish reason and the number of tokens. With --cancel it
asks the broker to stop after the first tokens. Needs pyzmq and msgpack; the protocol is in proto/PROTOCOL.md."""
import sys

import msgpack
import zmq

REQUEST_ID = 1
SILENCE_MS = 6000  # the broker sends a beat every second while a request lives


def send(socket, **message):
    socket.send(msgpack.packb({"v": 1, "id": REQUEST_ID, **message}))


def main(endpoint, model, prompt, max_tokens=128, cancel=False):
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 1000  # time for a last message to leave; the default is for ever
    socket.connect(endpoint)
    send(socket, type="generate", request={"model": model, "prompt": prompt, "max_tokens": max_tokens})

    while socket.poll(SILENCE_MS):
        message = msgpack.unpackb(socket.recv())
        kind = message["type"]
        if message.get("id") != REQUEST_ID:
            continue  # a beat
        if kind == "tokens":
            print(message["text"], end="", flush=True)
            if cancel:
                send(socket, type="cancel")
                cancel = False
        elif kind == "done":
            print(f"\n[{message['finish_reason']}: {message['completion_tokens']} tokens]")
            return 0
        elif kind == "cancelled":
            print(f"\n[cancelled: {message['completion_tokens']} tokens]")
            return 0
        elif kind == "error":
            print(f"{message['code']}: {message['message']}", file=sys.stderr)
            return 1
    print("the broker does not answer", file=sys.stderr)
    return 3


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--cancel"]
    if len(words) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*words[:3], int(words[3]) if len(words) == 4 else 128, "--cancel" in sys.argv))
