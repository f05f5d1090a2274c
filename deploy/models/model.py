"""The forward pass of the four architectures, in torch, over a dictionary of tensors with their GGUF names.

Everything an architecture does differently is a fact of its recipe; the names of the tensors are the conventional
ones, so the same dictionary is the checkpoint and, written out, the model file.
"""
import torch
import torch.nn.functional as F


def initial_weights(r, generator):
    """Normal weights; what writes into the residual stream starts at zero, so that every layer starts as nothing."""
    def normal(rows, columns, std):
        return torch.randn(rows, columns, generator=generator) * std

    head = r.dim // r.heads
    weights = {"token_embd.weight": normal(r.vocab, r.dim, 0.05)}
    for i in range(r.layers):
        b = f"blk.{i}."
        weights[b + "attn_norm.weight"] = torch.ones(r.dim)
        for name, rows in (("q", r.dim), ("k", head * r.kv_heads), ("v", head * r.kv_heads)):
            weights[f"{b}attn_{name}.weight"] = normal(rows, r.dim, r.dim ** -0.5)
            if r.has_qkv_bias:
                weights[f"{b}attn_{name}.bias"] = torch.zeros(rows)
        weights[b + "attn_output.weight"] = torch.zeros(r.dim, r.dim)
        weights[b + "ffn_norm.weight"] = torch.ones(r.dim)
        weights[b + "ffn_gate.weight"] = normal(r.ff, r.dim, r.dim ** -0.5)
        weights[b + "ffn_up.weight"] = normal(r.ff, r.dim, r.dim ** -0.5)
        weights[b + "ffn_down.weight"] = torch.zeros(r.dim, r.ff)
    weights["output_norm.weight"] = torch.ones(r.dim)
    if not r.is_tied:
        weights["output.weight"] = normal(r.vocab, r.dim, 0.05)
    return weights


def rms_norm(x, weight, epsilon):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon) * weight


def rotation(r, length, dtype):
    """cos and sin [length][head / 2] of position times frequency."""
    head = r.dim // r.heads
    frequency = r.rope_base ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin, halves):
    """x [batch][head][position][head_dim]; a pair is (i, i + head_dim/2) if halves, else (2i, 2i + 1)."""
    if halves:
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def mask(r, length, dtype):
    """0 where a position (row) may look, minus infinity elsewhere; a window of n sees itself and n - 1 before it."""
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    hidden = (distance < 0) | (distance >= (r.window or length))
    return torch.zeros(length, length, dtype=dtype).masked_fill(hidden, float("-inf"))


def forward(r, w, ids):
    """ids [batch][position] to logits [batch][position][vocab], in the type of the weights."""
    batch, length = ids.shape
    dtype = w["token_embd.weight"].dtype
    head, group = r.dim // r.heads, r.heads // r.kv_heads
    cos, sin = rotation(r, length, dtype)
    hidden = mask(r, length, dtype)
    x = F.embedding(ids, w["token_embd.weight"]) * r.embedding_scale
    for i in range(r.layers):
        b = f"blk.{i}."
        h = rms_norm(x, w[b + "attn_norm.weight"], r.epsilon)
        q, k, v = (F.linear(h, w[f"{b}attn_{n}.weight"], w.get(f"{b}attn_{n}.bias")) for n in "qkv")
        q = rotate(q.view(batch, length, r.heads, head).transpose(1, 2), cos, sin, r.rope_halves)
        k = rotate(k.view(batch, length, r.kv_heads, head).transpose(1, 2), cos, sin, r.rope_halves)
        v = v.view(batch, length, r.kv_heads, head).transpose(1, 2)
        # The query heads of one key head are consecutive: put them one below the other instead of copying keys.
        q = q.reshape(batch, r.kv_heads, group * length, head) * r.attention_scale
        scores = (q @ k.transpose(-1, -2)).view(batch, r.kv_heads, group, length, length) + hidden
        h = scores.softmax(-1).view(batch, r.kv_heads, group * length, length) @ v
        h = h.view(batch, r.heads, length, head).transpose(1, 2).reshape(batch, length, r.dim)
        x = x + F.linear(h, w[b + "attn_output.weight"]) * r.residual_scale
        h = rms_norm(x, w[b + "ffn_norm.weight"], r.epsilon)
        # In float32 even where products are bfloat16: SiLU is slower in that.
        gate, up = (F.linear(h, w[f"{b}ffn_{n}.weight"]).to(dtype) for n in ("gate", "up"))
        h = F.silu(gate) * up
        x = x + F.linear(h, w[b + "ffn_down.weight"]) * r.residual_scale
    x = rms_norm(x, w["output_norm.weight"], r.epsilon)
    return F.linear(x, w["token_embd.weight" if r.is_tied else "output.weight"]) / r.logit_scale


def generate(r, w, ids, count, eos):
    """The most likely continuation; recomputes everything for each token, which is slow and surely right."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            token = int(forward(r, w, torch.tensor([ids[-r.context:]]))[0, -1].argmax())
            if token == eos:
                break
            ids.append(token)
    return ids
