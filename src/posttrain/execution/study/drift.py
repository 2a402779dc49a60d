"""How far a model went from the one that it began as, on its own answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posttrain.data.reader import Reader
from posttrain.data.rows import Problem, Row
from posttrain.data.sources import read
from posttrain.estimator.batch import Batch, Request
from posttrain.model.layout.padded import model_inputs
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.scoring import Scorer
from posttrain.recipe.recipe import Recipe
from posttrain.rollout.engine import Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.make import sampling_of
from posttrain.settings.model import ModelConfig
from posttrain.train.watch.records import write

ROWS = 64  # answers of a forward pass


@torch.no_grad()
def drift(model: Any, start: Any, tokenizer: Any, problems: Sequence[Problem], at: Sampling) -> dict[str, float]:
    """KL(model || start) in nats for each token and each answer, and the entropy of a token, on one sampled answer each.

    At the temperature of sampling. KL is the mean of logp - logp_start over the tokens of the model's own answers.
    """
    requests = [Request(problem.prompt, question=i) for i, problem in enumerate(problems)]
    answers = [group[0].tokens for group in HFEngine(model, tokenizer).generate(requests, at)]
    scorer, gaps = Scorer("whole", at.temperature), list[float]()
    tokens, entropy = 0, 0.0
    for first in range(0, len(answers), ROWS):
        rows = [
            Row(np.array(problem.prompt, np.int32), answer, np.ones(len(answer), np.bool_))
            for problem, answer in zip(problems[first : first + ROWS], answers[first : first + ROWS], strict=True)
        ]
        mask = torch.zeros(len(rows), max(len(row.completion) for row in rows), dtype=torch.bool)
        for i, row in enumerate(rows):
            mask[i, : len(row.completion)] = True
        inputs = model_inputs(rows, Batch(loss_mask=mask), pad_id=tokenizer.pad_token_id or 0).to(model.device)
        own = scorer.score(model, inputs, mask.to(model.device), entropy=True)
        before = scorer.score(start, inputs, mask.to(model.device))
        assert own.entropy is not None
        gaps += (own.logp - before.logp).sum(-1).tolist()
        tokens, entropy = tokens + int(mask.sum()), entropy + float(own.entropy.sum())
    return {"kl_per_token": sum(gaps) / tokens, "kl_per_answer": sum(gaps) / len(gaps), "entropy": entropy / tokens}


def write_drift(recipe: Recipe, folder: Path, start: str, name: str) -> None:
    """`drift.json` of a run: of its final model, from the model it began as, on an evaluation set's questions."""
    model, tokenizer = load(ModelConfig(name=str(folder / "final"), dtype=recipe.model.dtype), seed=0)
    before, _ = load(ModelConfig(name=start, dtype=recipe.model.dtype), seed=0)
    asked, _ = Reader(recipe.data, tokenizer, eos_ids(model, tokenizer)).problems(read(recipe.data.eval[name]))
    found = drift(model, before, tokenizer, asked[: recipe.eval.limit], sampling_of(recipe.eval, recipe.eval.seed))
    write(folder / "drift.json", json.dumps(found))
