#!/usr/bin/env python3
"""Writes the seeds of fuzz_gguf: small files that reach every branch of a good file.

    python3 tests/fuzz/seeds/make_gguf_seeds.py tests/fuzz/seeds/gguf
"""
import os
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(s):
    return struct.pack("<Q", len(s)) + s


def plain(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + CODES[kind], value)


def key(name, kind, value, element=None):
    head = text(name) + struct.pack("<I", kind)
    if kind == ARRAY:
        return head + struct.pack("<IQ", element, len(value)) + b"".join(plain(element, v) for v in value)
    return head + plain(kind, value)


def tensor(name, dims, weight_type, offset):
    return text(name) + struct.pack("<I", len(dims)) + struct.pack("<%dQ" % len(dims), *dims) + struct.pack(
        "<IQ", weight_type, offset)


def gguf(version, keys, tensors, data, alignment=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return out + bytes(-len(out) % alignment) + data


scalars = [key(b"k%d" % kind, kind, b"x" if kind == STRING else 1) for kind in CODES] + [key(b"s", STRING, b"llama")]
arrays = [key(b"a%d" % kind, ARRAY, [1, 0], kind) for kind in CODES] + [key(b"t", ARRAY, [b"<s>", b"", b"\xff"], STRING)]
seeds = {
    "empty": gguf(3, [], [], b""),
    "scalars": gguf(2, scalars, [], b""),
    "arrays": gguf(3, arrays, [], b""),
    "tensors": gguf(3, [], [tensor(b"f", [4, 2], 0, 0), tensor(b"q", [32, 2], 2, 32), tensor(b"k", [256], 14, 96),
                            tensor(b"d", [1, 1, 1, 3], 30, 320)], bytes(326)),
    "alignment": gguf(3, [key(b"general.alignment", U32, 8)], [tensor(b"f", [1], 0, 8)], bytes(12), 8),
    "split": gguf(3, [key(b"split.count", U16, 2), key(b"split.no", U16, 0), key(b"split.tensors.count", I32, 1)],
                  [tensor(b"f", [1], 0, 0)], bytes(4)),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
}
for name, content in seeds.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(content)
