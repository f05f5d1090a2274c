"""A second opinion on the engine's arithmetic: the forward pass of every architecture in float64 NumPy.

Written from the papers and the public descriptions of the models and of the file format, for clarity alone; it
shares nothing with the C code. It reads GGUF files whose tensors are F32 or F16.

    attention, RoPE   Vaswani et al. 2017; Su et al. 2021; YaRN: Peng et al. 2023; long RoPE: Ding et al. 2024
    RMS norm, GLU     Zhang and Sennrich 2019; Shazeer 2020; GELU: Hendrycks and Gimpel 2016
    models            the technical reports of Llama, Mistral, Mixtral, Granite, Qwen 2, 2.5 and 3, Gemma 1 and 2,
                      Phi 3, GPT-2, BitNet b1.58
"""

import math
import struct

import numpy as np


class Gguf:
    """Metadata in .keys, tensors by name as float64 arrays with the fastest dimension last."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    STRING, ARRAY = 8, 9
    TYPES = {0: np.float32, 1: np.float16}

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 0
        magic, version, n_tensors, n_keys = self._unpack("4sIQQ")
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"{path}: no GGUF of version 3")
        self.keys = {}
        for _ in range(n_keys):
            name = self._string()
            self.keys[name] = self._value(self._unpack("I")[0])
        entries = []
        for _ in range(n_tensors):
            name = self._string()
            shape = self._unpack("%dQ" % self._unpack("I")[0])
            entries.append((name, shape, *self._unpack("IQ")))
        alignment = self.keys.get("general.alignment", 32)
        base = (self.at + alignment - 1) // alignment * alignment
        self.tensors = {}
        for name, shape, kind, offset in entries:
            raw = np.frombuffer(self.data, self.TYPES[kind], math.prod(shape), base + offset)
            self.tensors[name] = raw.reshape(shape[::-1]).astype(np.float64)

    def _unpack(self, layout):
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def _string(self):
        n = self._unpack("Q")[0]
        return self._unpack(f"{n}s")[0].decode("utf-8", "replace")

    def _value(self, kind):
        if kind == self.STRING:
            return self._string()
        if kind == self.ARRAY:
            element, count = self._unpack("IQ")
            return [self._value(element) for _ in range(count)]
        return self._unpack(self.SCALARS[kind])[0]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cap(x, limit):
    return limit * np.tanh(x / limit) if limit else x


# Which half of the public models turn which pairs: those converted to the original Llama order, and the others.
NEIGHBOURS = {"llama", "granite", "granitemoe"}


class Model:
    def __init__(self, path):
        self.file = Gguf(path)
        self.t = self.file.tensors
        self.arch = self.file.keys["general.architecture"]
        self.n_layers = self.key("block_count")
        self.n_embd = self.key("embedding_length")
        self.n_heads = self.key("attention.head_count")
        self.n_kv = self.key("attention.head_count_kv", self.n_heads)
        self.head_dim = self.key("attention.key_length", self.n_embd // self.n_heads)
        self.n_ctx = self.key("context_length")
        self.eps = self.key("attention.layer_norm_rms_epsilon", None) or self.key("attention.layer_norm_epsilon")
        self.n_rot = 0 if self.arch == "gpt2" else self.key("rope.dimension_count", self.head_dim)

    REQUIRED = object()

    def key(self, name, default=REQUIRED):
        full = f"{self.arch}.{name}"
        return self.file.keys[full] if default is self.REQUIRED else self.file.keys.get(full, default)

    # --- pieces ---

    def linear(self, x, name):
        y = x @ self.t[name + ".weight"].T
        if name + ".scale" in self.t:
            y = y * self.t[name + ".scale"][0]
        if name + ".bias" in self.t:
            y = y + self.t[name + ".bias"]
        return y

    def norm(self, x, name):
        if self.arch == "gpt2":
            centred = x - x.mean(axis=-1, keepdims=True)
            y = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.eps)
            return y * self.t[name + ".weight"] + self.t[name + ".bias"]
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps) * self.t[name + ".weight"]

    def angles(self, positions, n_ctx):
        """(radians [positions][n_rot / 2], gain of both cosine and sine)"""
        half = self.n_rot // 2
        frequency = self.key("rope.freq_base", 10000.0) ** -(np.arange(half) / half)
        gain = self.key("rope.scaling.attn_factor", 1.0)
        original = self.key("rope.scaling.original_context_length", self.n_ctx)
        kind = self.key("rope.scaling.type", "none")
        factor = self.key("rope.scaling.factor", 1.0)
        if "rope_freqs.weight" in self.t:
            frequency = frequency / self.t["rope_freqs.weight"]
        if "rope_factors_long.weight" in self.t:
            which = "long" if n_ctx > original else "short"
            frequency = frequency / self.t[f"rope_factors_{which}.weight"]
        if kind == "linear":
            frequency = frequency / factor
        if kind == "yarn":
            # Turns within the original context decide: more than `fast` stay, fewer than `slow` are stretched.
            base = self.key("rope.freq_base", 10000.0)
            fast, slow = self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0)
            at = [self.n_rot * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
                  for turns in (fast, slow)]
            low, high = max(math.floor(at[0]), 0), min(math.ceil(at[1]), self.n_rot - 1)
            stretched = np.clip((np.arange(half) - low) / max(high - low, 0.001), 0, 1)
            frequency = frequency * (1 - stretched) + frequency / factor * stretched
            gain *= 0.1 * math.log(factor) + 1
        return np.outer(positions, frequency), gain

    def rope(self, x, angles, gain):
        """x [positions][heads][head_dim]"""
        half = self.n_rot // 2
        cos, sin = gain * np.cos(angles)[:, None, :], gain * np.sin(angles)[:, None, :]
        y = x.copy()
        if self.arch in NEIGHBOURS:
            first, second = slice(0, self.n_rot, 2), slice(1, self.n_rot, 2)
        else:
            first, second = slice(0, half), slice(half, self.n_rot)
        y[..., first] = x[..., first] * cos - x[..., second] * sin
        y[..., second] = x[..., second] * cos + x[..., first] * sin
        return y

    # --- blocks ---

    def q_k_v(self, h, prefix):
        n = len(h)
        if prefix + "attn_qkv.weight" in self.t:
            sizes = np.cumsum([self.n_heads * self.head_dim, self.n_kv * self.head_dim])
            q, k, v = np.split(self.linear(h, prefix + "attn_qkv"), sizes, axis=-1)
        else:
            q, k, v = (self.linear(h, prefix + "attn_" + which) for which in "qkv")
        q, k, v = (x.reshape(n, -1, self.head_dim) for x in (q, k, v))
        if self.arch.startswith("qwen3"):
            q, k = self.norm(q, prefix + "attn_q_norm"), self.norm(k, prefix + "attn_k_norm")
        return q, k, v

    def window(self, layer):
        width = self.key("attention.sliding_window", 4096 if self.arch == "gemma2" else 0)
        if self.arch == "gemma2" and layer % 2 == 1:
            return 0
        return width

    def attention(self, h, layer, angles, gain):
        prefix = f"blk.{layer}."
        n = len(h)
        q, k, v = self.q_k_v(h, prefix)
        if self.n_rot:
            q, k = self.rope(q, angles, gain), self.rope(k, angles, gain)
        k, v = (np.repeat(x, self.n_heads // self.n_kv, axis=1) for x in (k, v))
        scale = self.key("attention.scale", 0) or 1 / math.sqrt(self.head_dim)
        scores = np.einsum("ihd,jhd->hij", q, k) * scale
        if self.arch == "gemma2":
            scores = cap(scores, self.key("attn_logit_softcapping", 50.0))
        back = np.arange(n)[:, None] - np.arange(n)[None, :]
        seen = back >= 0
        if self.window(layer):
            seen &= back < self.window(layer)
        weights = softmax(np.where(seen, scores, -np.inf))
        attended = np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1)
        if self.arch == "bitnet":
            attended = self.norm(attended, prefix + "attn_sub_norm")
        return self.linear(attended, prefix + "attn_output")

    def feed_forward(self, h, prefix, suffix=""):
        if self.arch == "gpt2":
            return self.linear(gelu(self.linear(h, prefix + "ffn_up")), prefix + "ffn_down")
        if self.arch == "phi3":
            gate, up = np.split(self.linear(h, prefix + "ffn_up"), 2, axis=-1)
        else:
            gate, up = self.linear(h, prefix + "ffn_gate" + suffix), self.linear(h, prefix + "ffn_up" + suffix)
        inner = (gelu if self.arch.startswith("gemma") else silu)(gate) * up
        if self.arch == "bitnet":
            inner = self.norm(inner, prefix + "ffn_sub_norm")
        return self.linear(inner, prefix + "ffn_down" + suffix)

    def experts(self, h, prefix):
        router = self.linear(h, prefix + "ffn_gate_inp")
        out = np.zeros_like(h)
        for i, row in enumerate(h):
            best = np.argsort(-router[i], kind="stable")[: self.key("expert_used_count")]
            if self.arch == "qwen2moe":
                shares = softmax(router[i])[best]  # of all experts, the others' part is lost
            else:
                shares = softmax(router[i][best])
            for expert, share in zip(best, shares):
                gate, up, down = (self.t[f"{prefix}ffn_{which}_exps.weight"][expert]
                                  for which in ("gate", "up", "down"))
                out[i] += share * (down @ (silu(gate @ row) * (up @ row)))
        if prefix + "ffn_up_shexp.weight" in self.t:
            shared = self.feed_forward(h, prefix, "_shexp")
            if prefix + "ffn_gate_inp_shexp.weight" in self.t:
                gate = h @ self.t[prefix + "ffn_gate_inp_shexp.weight"]
                shared = shared / (1 + np.exp(-gate))[:, None]
            out += shared
        return out

    def logits(self, ids, n_ctx=None):
        """[len(ids)][n_vocab]; n_ctx is the context the engine was started with."""
        positions = np.arange(len(ids))
        x = self.t["token_embd.weight"][ids]
        if self.arch == "gpt2":
            x = x + self.t["position_embd.weight"][positions]
        if self.arch.startswith("gemma"):
            x = x * math.sqrt(self.n_embd)
        x = x * self.key("embedding_scale", 1.0)
        residual = self.key("residual_scale", 1.0)
        angles, gain = self.angles(positions, n_ctx or len(ids)) if self.n_rot else (None, None)
        for layer in range(self.n_layers):
            prefix = f"blk.{layer}."
            delta = self.attention(self.norm(x, prefix + "attn_norm"), layer, angles, gain)
            if self.arch == "gemma2":
                delta = self.norm(delta, prefix + "post_attention_norm")
            x = x + residual * delta
            h = self.norm(x, prefix + "ffn_norm")
            delta = self.experts(h, prefix) if self.key("expert_count", 0) else self.feed_forward(h, prefix)
            if self.arch == "gemma2":
                delta = self.norm(delta, prefix + "post_ffw_norm")
            x = x + residual * delta
        output = "output.weight" if "output.weight" in self.t else "token_embd.weight"
        y = self.norm(x, "output_norm") @ self.t[output].T / self.key("logit_scale", 1.0)
        return cap(y, self.key("final_logit_softcapping", 30.0)) if self.arch == "gemma2" else y
