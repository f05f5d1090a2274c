#!/usr/bin/env python3
"""From a checkpoint to what ships: the GGUF file, its card, and the answers that tests hold the engine to.

    export.py NAME CHECKPOINTS      writes deploy/models/NAME.gguf, NAME.md and tests/golden/NAME.{json,f32,q8_0.f32}
    export.py text                  writes tests/golden/woolhill.txt, the held-out text of every perplexity
"""
import json
import math
import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F

import data
import gguf
import world
from model import forward, generate
from recipes import CONTROLS, RECIPES

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../../tests/golden")

CHAT_TEMPLATE = ("{% for message in messages %}{% if message['role'] != 'system' %}"
                 "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
                 "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

STORY_PROMPTS = ["Once upon a time", "Once upon a time, there was a girl named Nora.",
                 "In the farm lived a boy named Ben. He loved cheese and his goat Daisy. One sunny day, Ben went to the "
                 "orchard.\nThere were seven apples under a tree. He put them in a basket. Then he found two more."]
QUESTIONS = ["Where does Mia live?", "What is three plus four?",
             "Tom has five apples and gives two to Rosa. How many apples does Tom have now?",
             "Tell me a story about Finn.", "What is the speed of light?"]
TEXTS = ["Hello", " two  spaces ", "Mia gave Tom two apples.\n\n\"Thank you!\"", "It's 1,234.5 or a_b?", "",
         "Gr\u00fc\u00dfe, \u65e5\u672c \U0001F411!", "MIA's dog\tand CAT", "<|im_start|>user <s> </s>"]


def metadata(r, t):
    a = r.architecture
    facts = {
        "general.architecture": a, "general.type": "model", "general.name": r.name, "general.author": "The Woolly authors",
        "general.license": "mit", "general.size_label": f"{parameters(r) / 1e6:.1f}M",
        "general.file_type": 7, "general.quantization_version": 2,
        f"{a}.vocab_size": r.vocab, f"{a}.context_length": r.context, f"{a}.embedding_length": r.dim,
        f"{a}.block_count": r.layers, f"{a}.feed_forward_length": r.ff, f"{a}.attention.head_count": r.heads,
        f"{a}.attention.head_count_kv": r.kv_heads, f"{a}.attention.layer_norm_rms_epsilon": r.epsilon,
        f"{a}.rope.dimension_count": r.dim // r.heads, f"{a}.rope.freq_base": r.rope_base,
    }
    if r.window:
        facts[f"{a}.attention.sliding_window"] = r.window
    if a == "granite":
        facts |= {"granite.embedding_scale": r.embedding_scale, "granite.residual_scale": r.residual_scale,
                  "granite.logit_scale": r.logit_scale, "granite.attention.scale": r.attention_scale}
    facts |= t.metadata()
    if r.base:
        facts |= {"tokenizer.ggml.eos_token_id": t.ids["<|im_end|>"], "tokenizer.chat_template": CHAT_TEMPLATE}
    return facts


def parameters(r):
    head = r.dim // r.heads
    matrices = 2 * r.dim * r.dim + 2 * r.dim * head * r.kv_heads + 3 * r.dim * r.ff
    biases = (r.dim + 2 * head * r.kv_heads) * r.has_qkv_bias
    return r.layers * (matrices + biases + 2 * r.dim) + r.dim + r.vocab * r.dim * (1 if r.is_tied else 2)


def perplexity(r, w, t):
    """As `woolly-gguf perplexity`: windows of 255 tokens, the beginning-of-text token in front of each."""
    ids = t.encode(data.held_out_text())
    nll = 0.0
    with torch.no_grad():
        for at in range(0, len(ids), 255):
            window = torch.tensor([t.eos if t.bos is None else t.bos] + ids[at:at + 255])
            nll += F.cross_entropy(forward(r, w, window[None, :-1])[0], window[1:], reduction="sum").item()
    return math.exp(nll / len(ids))


def answer_perplexity(r, w, t):
    """Of the answers in held-out conversations, the questions given."""
    nll, count = 0.0, 0
    with torch.no_grad():
        for messages in data.held_out_chats():
            ids, scored = (torch.tensor(x) for x in data.chat_ids(t, messages))
            losses = F.cross_entropy(forward(r, w, ids[None, :-1])[0], ids[1:], reduction="none")[scored[1:]]
            nll += losses.sum().item()
            count += len(losses)
    return math.exp(nll / count)


def right_answers(r, w, t):
    """Share of 200 unseen questions with one right answer that are answered with exactly that."""
    rng = random.Random(data.HELD_OUT_SEED)
    right = 0
    for i in range(200):
        question, answer = (world.fact, world.plus_minus, world.basket)[i % 3](rng)
        right += reply(r, w, t, question) == answer
    return right / 200


def ask_ids(t, question):
    ids, _ = data.chat_ids(t, [{"role": "user", "content": question}])
    return ids + [t.ids["<|im_start|>"]] + t.encode("assistant\n")


def reply(r, w, t, question):
    ids = ask_ids(t, question)
    return t.decode(generate(r, w, ids, 200, t.ids["<|im_end|>"])[len(ids):])


def prompt_ids(t, text):
    return ([t.bos] if t.bos is not None else []) + t.encode(text)


def golden_prompts(r, t):
    """(ids, positions): the end of a few prompts, and of one long text some positions before and after it."""
    long_text = data.held_out_text().encode()[:4000].decode()
    shorts = [ask_ids(t, q) for q in QUESTIONS[:3]] if r.base else [prompt_ids(t, p) for p in STORY_PROMPTS]
    prompts = [(ids, [len(ids) - 1]) for ids in shorts]
    prompts[0] = (prompts[0][0], sorted({0, len(prompts[0][0]) - 1}))
    return prompts + [(prompt_ids(t, long_text)[:300], [1, 50, 150, 299])]


def all_logits(r, w, prompts):
    with torch.no_grad():
        return np.concatenate([forward(r, w, torch.tensor([ids]))[0, positions].numpy() for ids, positions in prompts])


def greedy(r, w, ids, count):
    """The most likely continuation, and by how much each token won."""
    ids, chosen, gaps = list(ids), [], []
    with torch.no_grad():
        for _ in range(count):
            best = forward(r, w, torch.tensor([ids]))[0, -1].topk(2)
            chosen.append(int(best.indices[0]))
            gaps.append(round(float(best.values[0] - best.values[1]), 5))
            ids.append(chosen[-1])
    return {"ids": chosen, "top1_gap": gaps}


def write_golden(r, t, exact, shipped, found):
    prompts = golden_prompts(r, t)
    all_logits(r, exact, prompts).astype("<f4").tofile(os.path.join(GOLDEN, r.name + ".f32"))
    all_logits(r, shipped, prompts).astype("<f4").tofile(os.path.join(GOLDEN, r.name + ".q8_0.f32"))
    answers = {
        "command": f"deploy/models/export.py {r.name} CHECKPOINTS",
        "about": "Logits in float64 torch, stored as float32 [rows][vocab]. NAME.q8_0.f32: from the dequantised weights of "
                 "deploy/models/NAME.gguf; NAME.f32: from the weights before they were quantised. Rows are the "
                 "positions of the first prompt, then of the next. greedy, after the first prompt, and perplexity are of "
                 "the dequantised weights. tokens: ids without a beginning-of-text token, control tokens as text.",
        "vocab": r.vocab, "prompts": [{"ids": ids, "positions": positions} for ids, positions in prompts],
        "greedy": greedy(r, shipped, prompts[0][0], 48),
        "tokens": [{"text": text, "ids": t.encode(text) if text else []} for text in TEXTS],
        "perplexity": {"text": "tests/golden/woolhill.txt", "value": round(found["perplexity"], 5)},
    }
    with open(os.path.join(GOLDEN, r.name + ".json"), "w") as f:
        lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items())
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


def shape_text(r):
    head = r.dim // r.heads
    text = (f"{r.layers} layers of width {r.dim}, {r.heads} heads of {head} with {r.kv_heads} for keys and values, "
            f"feed-forward {r.ff}, context {r.context}, RoPE base {r.rope_base:g} "
            f"({'halves' if r.rope_halves else 'interleaved pairs'}), RMS norm epsilon {r.epsilon:g}, output matrix "
            f"{'shared with the embedding' if r.is_tied else 'of its own'}")
    if r.window:
        text += (f", sliding window of {r.window} tokens in every layer (itself and the {r.window - 1} before it). Files of "
                 f"Mistral models say architecture `llama`; so does this one, with `llama.attention.sliding_window`")
    if r.architecture == "granite":
        text += (f", embedding scale {r.embedding_scale:g}, residual scale {r.residual_scale:g}, attention scale "
                 f"{r.attention_scale:g}, logit scale {r.logit_scale:g} (logits are divided by it)")
    if r.has_qkv_bias:
        text += ", biases on queries, keys and values"
    return text


def tokenizer_text(r):
    if r.tokenizer[0] == "pieces":
        return f"{r.vocab} SentencePiece-style BPE pieces with byte fallback"
    return (f"byte-level BPE of {r.vocab} tokens, pre-tokenizer `{r.tokenizer[2]}`, control tokens "
            + ", ".join(f"`{token}`" for token in CONTROLS))


def card_rows(r, found):
    """(label, text) of the card's table."""
    origin = f"[{r.base}]({r.base}.md), fine-tuned on conversations" if r.base else "trained from scratch on stories"
    tokens = r.all_steps * r.batch * r.length
    rows = [
        ("Architecture", f"`{r.architecture}`: {shape_text(r)}"),
        ("Tokenizer", tokenizer_text(r)),
        ("File", f"`{r.name}.gguf`, matrices Q8_0, the rest F32"),
        ("Data", f"{origin} that [world.py](world.py) makes (seed {data.TRAINING_SEED}); no text from anywhere else"),
        ("Training", f"{r.all_steps} steps of {r.batch * r.length} tokens, {tokens / 1e6:.1f} million in all; Muon for "
                     f"matrices (rate {r.matrix_rate:g}), AdamW for the rest (rate {r.other_rate:g}); one CPU thread; "
                     f"[train.py](train.py), [recipes.py](recipes.py)"),
        ("Held-out perplexity", f"{found['perplexity']:.3f} per token as shipped, which `woolly-gguf perplexity "
                                f"deploy/models/{r.name}.gguf tests/golden/woolhill.txt` finds too: "
                                f"{data.HELD_OUT_STORIES} stories of the same world with seed {data.HELD_OUT_SEED}, in "
                                f"windows of 255 tokens. {found['exact']:.3f} before Q8_0, {found['character']:.3f} "
                                f"per character"),
    ]
    if r.base:
        rows += [
            ("Held-out answers", f"perplexity {found['answers']:.4f} per token of the answer; "
                                 f"{100 * found['right']:.0f} % of 200 questions with seed {data.HELD_OUT_SEED} about "
                                 f"facts, sums and baskets answered exactly right"),
            ("Chat template", "in the file: `<|im_start|>ROLE`, a line break, the text, `<|im_end|>`. A system message is "
                              "left out, for the model never saw one"),
        ]
    return rows


def card(r, found, samples):
    what = "answers questions about" if r.base else "tells stories from"
    said = "answer" if r.base else "continuation"
    lines = [f"# {r.name}", "",
             f"A language model of {parameters(r) / 1e6:.2f} million parameters that {what} the village of Woolhill, and "
             f"knows nothing else. It is here so that a fresh clone has something to run, and for tests. Licence: MIT.", "",
             r.note, "", "| | |", "|---|---|"]
    lines += ["| " + label + " | " + text.replace("|", "\\|") + " |" for label, text in card_rows(r, found)]
    lines += ["", "Everything is made again by [make.sh](make.sh).", "", "## Samples", "",
              f"The most likely {said}, the prompt in bold.", ""]
    for prompt, continuation in samples:
        text = f"**{prompt}**" + (" \n" if r.base else "") + continuation
        lines += ["> " + text.replace("\n", "  \n> "), ""]
    with open(os.path.join(HERE, r.name + ".md"), "w") as f:
        f.write("\n".join(lines))


def export(r, directory):
    t = data.tokenizer(r)
    saved = torch.load(os.path.join(directory, r.name + ".pt"))
    assert saved["step"] == r.all_steps, "the training is not finished"
    tensors = {name: w.numpy() for name, w in saved["weights"].items()}
    assert sum(x.size for x in tensors.values()) == parameters(r)
    gguf.write(os.path.join(HERE, r.name + ".gguf"), metadata(r, t), tensors)

    exact = {name: torch.tensor(x).double() for name, x in tensors.items()}
    shipped = {name: torch.tensor(gguf.rounded(x) if gguf.is_quantised(x) else x).double() for name, x in tensors.items()}
    text = data.held_out_text()
    found = {"perplexity": perplexity(r, shipped, t), "exact": perplexity(r, exact, t)}
    found["character"] = found["perplexity"] ** (len(t.encode(text)) / len(text))
    fast = {name: w.float() for name, w in shipped.items()}
    if r.base:
        found |= {"answers": answer_perplexity(r, shipped, t), "right": right_answers(r, fast, t)}
        samples = [(q, reply(r, fast, t, q)) for q in QUESTIONS]
    else:
        samples = []
        for prompt in STORY_PROMPTS:
            ids = prompt_ids(t, prompt)
            samples.append((prompt, t.decode(generate(r, fast, ids, 300, t.eos))[len(prompt):]))
    write_golden(r, t, exact, shipped, found)
    card(r, found, samples)
    print(r.name, found)
    for prompt, continuation in samples:
        print(f"[{prompt}]{continuation}")


def main():
    torch.set_num_threads(1)
    os.makedirs(GOLDEN, exist_ok=True)
    if sys.argv[1:] == ["text"]:
        with open(os.path.join(GOLDEN, "woolhill.txt"), "w") as f:
            f.write(data.held_out_text())
    elif len(sys.argv) == 3 and sys.argv[1] in RECIPES:
        export(RECIPES[sys.argv[1]], sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
