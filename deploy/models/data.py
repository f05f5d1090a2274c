"""Text of the world as tokens: the tokenizer of a recipe, its training rows, and the held-out text."""
import array
import os
import pickle
import random

import torch

import world
from tokenizers import BytePairs, SentencePieces
from recipes import CONTROLS

STORIES, CHATS = 100000, 200000
TRAINING_SEED, HELD_OUT_SEED, HELD_OUT_STORIES = 1, 2, 40


def held_out_text():
    rng = random.Random(HELD_OUT_SEED)
    return "\n".join(world.make_story(rng) for _ in range(HELD_OUT_STORIES)) + "\n"


def held_out_chats(count=100):
    rng = random.Random(HELD_OUT_SEED)
    return [world.make_chat(rng) for _ in range(count)]


def tokenizer(recipe):
    """Learnt from stories and conversations, since the same vocabulary serves the chat model."""
    rng = random.Random(TRAINING_SEED)
    text = "\n".join(world.make_story(rng) for _ in range(3000))
    text += "\n".join(m["content"] for _ in range(3000) for m in world.make_chat(rng))
    if recipe.tokenizer[0] == "pieces":
        return SentencePieces(text, recipe.vocab)
    # The world has too few words for the larger vocabulary: learn them small and in capitals as well.
    part = text[:200000]
    text += part.lower() + part.title() + part.upper()
    return BytePairs(text, recipe.vocab, recipe.tokenizer[2], CONTROLS)


def chat_ids(t, messages):
    """Tokens of a conversation as the chat template renders it, and which of them the model has to say."""
    start, end = t.ids["<|im_start|>"], t.ids["<|im_end|>"]
    newline = t.encode("\n")
    ids, scored = [], []
    for m in messages:
        head = [start] + t.encode(m["role"] + "\n")
        said = t.encode(m["content"]) + [end]
        ids += head + said + newline
        scored += [False] * len(head) + [m["role"] == "assistant"] * len(said) + [False] * len(newline)
    return ids, scored


def documents(recipe, t):
    """(ids, scored) of every training document, BOS and EOS included."""
    rng = random.Random(TRAINING_SEED)
    if recipe.base:
        for _ in range(CHATS):
            messages = world.make_chat(rng)
            for m in messages:
                if m["role"] == "user":
                    m["content"] = world.casual(rng, m["content"])
            yield chat_ids(t, messages)
    else:
        for _ in range(STORIES):
            ids = ([t.bos] if t.bos is not None else []) + t.encode(world.make_story(rng)) + [t.eos]
            yield ids, [True] * len(ids)


def batches(recipe, directory):
    """A function from step to (rows [batch][length + 1], is_scored): half the rows start where a document starts."""
    path = os.path.join(directory, recipe.name + ".tokens")
    if not os.path.exists(path):
        t = tokenizer(recipe)
        ids, scored, starts = array.array("h"), bytearray(), []
        for document, is_scored in documents(recipe, t):
            starts.append(len(ids))
            ids.extend(document)
            scored.extend(is_scored)
        with open(path, "wb") as f:
            pickle.dump((ids, scored, starts, t.bos), f)
    with open(path, "rb") as f:
        ids, scored, starts, bos = pickle.load(f)
    ids = torch.frombuffer(ids, dtype=torch.int16)
    scored = torch.frombuffer(scored, dtype=torch.bool)
    last = len(ids) - recipe.context - 1
    starts = [s for s in starts if s <= last]

    def rows(step):
        rng = random.Random(recipe.seed * 1000003 + step)
        chosen, is_scored = [], []
        batch, length = recipe.rows(step)
        for i in range(batch):
            at_start = recipe.base or i % 2 == 0
            at = rng.choice(starts) if at_start else rng.randint(1, last)
            row = ids[at:at + length + 1].long()
            if not at_start and bos is not None:
                row[0] = bos  # as engines do when they measure a text in windows
            chosen.append(row)
            is_scored.append(scored[at:at + length + 1])
        return torch.stack(chosen), torch.stack(is_scored)

    return rows
