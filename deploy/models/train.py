#!/usr/bin/env python3
"""Trains one of the default models on text of its own world and leaves its weights in a checkpoint.

    train.py NAME DIRECTORY

Matrices are trained with Muon (momentum made orthogonal), everything else with AdamW. A run that was cut off goes on
from its last checkpoint. Weights are float32; where the processor multiplies bfloat16, products are computed in that,
which is faster. Seeds are fixed and one thread computes, so a repeat on the same kind of machine should come close.
"""
import argparse
import os
import time

import torch
import torch.nn.functional as F

import data
from model import forward, initial_weights
from recipes import RECIPES


with open("/proc/cpuinfo") as info:
    HAS_BFLOAT16 = "avx512_bf16" in info.read()


def products():
    """Where matrices are multiplied."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=HAS_BFLOAT16)


class Muon:
    """Momentum for matrices, made orthogonal: every direction of a matrix learns equally fast. Matrices of one shape
    are computed together."""

    def __init__(self, matrices, rate):
        self.rate = rate
        shapes = dict.fromkeys(m.shape for m in matrices)
        self.groups = [[m for m in matrices if m.shape == shape] for shape in shapes]
        self.momentum = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @staticmethod
    def orthogonal(g):
        """Five Newton-Schulz steps: singular values near 1, roughly, which is enough."""
        is_tall = g.shape[1] > g.shape[2]
        x = g.mT if is_tall else g
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        with products():
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return (x.mT if is_tall else x).float()

    @torch.no_grad()
    def step(self, share):
        for group, momentum in zip(self.groups, self.momentum):
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum.mul_(0.95).add_(gradient)
            updates = self.orthogonal(gradient + 0.95 * momentum)
            scale = max(1.0, momentum.shape[1] / momentum.shape[2]) ** 0.5
            for matrix, update in zip(group, updates):
                matrix.mul_(1 - 0.01 * self.rate * share).sub_(update, alpha=self.rate * share * scale)


def train(recipe, directory):
    path = os.path.join(directory, recipe.name + ".pt")
    batches = data.batches(recipe, directory)
    if recipe.base:
        weights = torch.load(os.path.join(directory, recipe.base + ".pt"))["weights"]
    else:
        weights = initial_weights(recipe, torch.Generator().manual_seed(recipe.seed))
    for weight in weights.values():
        weight.requires_grad_(True)
    is_matrix = {n: n.startswith("blk.") and n.endswith(".weight") and "norm" not in n for n in weights}
    muon = Muon([w for n, w in weights.items() if is_matrix[n]], recipe.matrix_rate)
    adam = torch.optim.AdamW([w for n, w in weights.items() if not is_matrix[n]], betas=(0.9, 0.95), weight_decay=0.0)
    first = 0
    if os.path.exists(path):
        saved = torch.load(path)
        first = saved["step"]
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved["weights"][name])
        for mine, theirs in zip(muon.momentum, saved["momentum"]):
            mine.copy_(theirs)
        adam.load_state_dict(saved["adam"])

    def save(step):
        torch.save({"step": step, "weights": {n: w.detach() for n, w in weights.items()}, "momentum": muon.momentum,
                    "adam": adam.state_dict()}, path + ".new")
        os.replace(path + ".new", path)

    began, mean = time.time(), None
    for step in range(first, recipe.all_steps):
        rows, is_scored = batches(step)
        with products():
            logits = forward(recipe, weights, rows[:, :-1]).float()
        targets = rows[:, 1:].masked_fill(~is_scored[:, 1:], -100)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        for weight in weights.values():
            weight.grad = None
        loss.backward()
        share = recipe.rate_share(step)
        for group in adam.param_groups:
            group["lr"] = recipe.other_rate * share
        adam.step()
        muon.step(share)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 20 == 0:
            tokens = (step + 1 - first) * recipe.batch * recipe.length
            print(f"{recipe.name} step {step + 1}/{recipe.all_steps} loss {mean:.4f} "
                  f"{tokens / (time.time() - began):.0f} tokens/s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == recipe.all_steps:
            save(step + 1)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("name", choices=RECIPES)
    args.add_argument("directory")
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # attention makes many numbers too small to matter, and they are slow
    train(RECIPES[args.name], args.directory)


if __name__ == "__main__":
    main()
