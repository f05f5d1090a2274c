"""Writes GGUF version 3 files, with matrices as Q8_0 and everything else as F32."""
import struct

import numpy as np

ALIGNMENT = 32
BLOCK = 32
F32, Q8_0 = 0, 8
U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def quantise(x):
    """Blocks of Q8_0 for float32 [rows][columns]: (scales f16 [blocks], integers int8 [blocks][32]).

    The integers come from the scale before it is rounded to f16, in float32, and round half away from zero: the
    arithmetic of the reference, so that the bits agree.
    """
    blocks = np.ascontiguousarray(x, dtype=np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale > 0, np.float32(1) / scale, np.float32(0)).astype(np.float32)
    scaled = (blocks * inverse[:, None]).astype(np.float64)  # float64 so that adding a half is exact
    return scale.astype(np.float16), np.copysign(np.floor(np.abs(scaled) + 0.5), scaled).astype(np.int8)


def dequantise(scales, integers, shape):
    return (scales.astype(np.float32)[:, None] * integers.astype(np.float32)).reshape(shape)


def rounded(x):
    """What is left of a matrix after Q8_0."""
    return dequantise(*quantise(x), x.shape)


def is_quantised(x):
    return x.ndim == 2


def tensor_bytes(x):
    if not is_quantised(x):
        return np.ascontiguousarray(x, dtype="<f4").tobytes()
    scales, integers = quantise(x)
    blocks = np.zeros(len(scales), dtype=[("d", "<f2"), ("q", "i1", BLOCK)])
    blocks["d"], blocks["q"] = scales, integers
    return blocks.tobytes()


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(value):
    """(type, bytes) of a metadata value; integers are unsigned but in arrays, where the format has them signed."""
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return U32, struct.pack("<I", value)
    if isinstance(value, float):
        return FLOAT, struct.pack("<f", value)
    return STRING, string(value)


def value_bytes(value):
    if not isinstance(value, list):
        kind, data = scalar(value)
        return struct.pack("<I", kind) + data
    kind, items = scalar(value[0])[0], b"".join(scalar(item)[1] for item in value)
    return struct.pack("<IIQ", ARRAY, I32 if kind == U32 else kind, len(value)) + items


def write(path, metadata, tensors):
    """tensors: name to float32 array in torch's order; the file lists dimensions the other way round."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += string(key) + value_bytes(value)
    offset, datas = 0, []
    for name, x in tensors.items():
        data = tensor_bytes(x)
        head += string(name) + struct.pack("<I", x.ndim) + struct.pack(f"<{x.ndim}Q", *reversed(x.shape))
        head += struct.pack("<IQ", Q8_0 if is_quantised(x) else F32, offset)
        data += bytes(-len(data) % ALIGNMENT)
        offset += len(data)
        datas.append(data)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGNMENT) + b"".join(datas))
