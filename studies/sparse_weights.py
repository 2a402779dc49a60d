"""Which tokens of a demonstration get which weight from the start models of studies/sparse_rewards.yaml; prints a table.

`python studies/sparse_weights.py runs/sparse_rewards`, after the study. Hard questions of the training split; advantage of a
demonstration in a group of seven wrong rollouts: 7/8.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from posttrain.data.reader import Reader
from posttrain.data.sources import read
from posttrain.model.layout.padded import model_inputs
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.scoring import Scorer
from posttrain.settings.data import Encoding, TaskSource
from posttrain.settings.model import ModelConfig
from posttrain.train.collect.demonstrations import collect_demonstrations

SOURCE = TaskSource(task="running_totals", split="train", rows=256, hard=1.0)
GAMMA, ADVANTAGE = 0.1, 7 / 8


def probabilities(folder: Path) -> np.ndarray:
    """Of each token of each demonstration, under a start model, [256, 6]."""
    model, tokenizer = load(ModelConfig(name=str(folder)), seed=0)
    examples, _ = Reader(Encoding(), tokenizer, eos_ids(model, tokenizer)).examples(read(SOURCE))
    collection = collect_demonstrations(examples, progress=0.0)
    inputs = model_inputs(list(collection.rows), collection.batch, pad_id=tokenizer.pad_token_id or 0)
    with torch.no_grad():
        return Scorer().score(model, inputs, collection.batch.loss_mask).logp.exp().numpy()


def main() -> None:
    """Means over questions and seeds, by position; the end is the last one."""
    folders = sorted((Path(sys.argv[1]) / "starts" / "sparse").glob("seed-[0-9]/final"))
    p = np.concatenate([probabilities(folder) for folder in folders])
    rows = {
        "p of the demonstrated token, mean": p.mean(0),
        "p, median": np.median(p, 0),
        "weight in SFT": np.ones(p.shape[1]),
        "weight in LUFFY, A γ p / (p + γ)²": (ADVANTAGE * GAMMA * p / (p + GAMMA) ** 2).mean(0),
        "weight in CHORD-φ, p (1 - p)": (p * (1 - p)).mean(0),
        "weight in DFT, p": p.mean(0),
    }
    print("| | " + " | ".join([*map(str, range(1, p.shape[1])), "end"]) + " |")
    print("|" + "---|" * (p.shape[1] + 1))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
