"""One step of `PostTrainer`, forward and backward, as its loop makes it: with counts, micro-batches, collating
and metrics.

Rollouts come from an engine that gives the case's answers, and a reward that gives its rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from models import Spec, make_model, make_tokenizer
from rows import Document, Group
from timing import Contender
from torch import Tensor
from transformers import TrainingArguments

from posttrain import Completion, PostTrainer, Request, Sampling, build_algorithm
from posttrain import Group as Judged
from posttrain.data.rows import Example, Problem, Row
from posttrain.model.layers.compiled import compile_layers, layers_of
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations

SCRATCH = TemporaryDirectory(prefix="bench-")
ROWS = 1024
"""Of a micro-batch, at most: the whole step is one."""
NATIVE = {"sft": "nll", "dapo": "objective/clipped", "dpo": "objective/dpo"}
"""The metric that is the loss as TRL defines it; our own loss is the surrogate's, with the same gradient."""


Layers = Callable[[Any], None]
"""What is done to the layers of a model that is ready to be trained."""


def as_they_are(model: Any) -> None:
    """Nothing: transformers' layers, operation by operation."""


def compiled(model: Any) -> None:
    """Each layer by torch.compile."""
    compile_layers(layers_of(model))


def of_liger(model: Any) -> None:
    """Liger's norms and feed-forward layers."""
    from liger_kernel.transformers import apply_liger_kernel_to_qwen2  # pyright: ignore[reportMissingImports]

    others = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
    apply_liger_kernel_to_qwen2(rms_norm=True, swiglu=True, model=model, **others)


def sft(spec: Spec, documents: Sequence[Document], layers: Layers = as_they_are) -> Contender:
    """Our SFT step."""
    examples = [Example((_row(each.prompt, each.completion),), f"row {i}") for i, each in enumerate(documents)]
    trainer = _trainer(spec, build_algorithm("sft"), examples, layers=layers)
    return _contender(trainer, "sft", collect_demonstrations(examples, progress=0.0))


def dpo(spec: Spec, pairs: Sequence[Group], *, kept: bool = False) -> Contender:
    """Our DPO step with the reference's forward; or with its log-probs kept."""
    examples = [
        Example((_row(each.prompt, each.answers[0]), _row(each.prompt, each.answers[1])), f"pair {i}")
        for i, each in enumerate(pairs)
    ]
    trainer = _trainer(spec, build_algorithm("dpo"), examples)
    model: Any = trainer.model
    collection = collect_demonstrations(examples, progress=0.0)
    if kept:
        collection = _with_start_logp(model, collection)
    contender = _contender(trainer, "dpo", collection)
    contender.against = "ours, reference kept" if kept else "ours"
    return contender


def grpo(spec: Spec, groups: Sequence[Group], layers: Layers = as_they_are) -> Contender:
    """Our update of one collection: DAPO's average without its dynamic sampling, which is TRL's default loss."""
    algorithm = build_algorithm("dapo", rollouts=len(groups[0].answers), clip_high=0.2, dynamic_sampling=False)
    problems = [Problem(each.prompt, {"prompt": str(i)}, f"question {i}") for i, each in enumerate(groups)]
    script = Script(list(groups), -math.log(spec.vocabulary))
    sampling = Sampling(max_tokens=max(len(answer) for each in groups for answer in each.answers))
    online = {"engine": script, "rewards": [script], "sampling": sampling, "layers": layers}
    trainer = _trainer(spec, algorithm, problems, rows=sum(len(each.answers) for each in groups), **online)
    return _contender(trainer, "dapo", trainer.run_state.collector.collect(trainer.model, 0, 0.0))


@dataclass
class Script:
    """An engine and a reward: the answers of groups by their prompt, and the rewards of these answers."""

    groups: list[Group]
    logp: float
    name: str = "script"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """The answers to these prompts."""
        known = {tuple(each.prompt): each.answers for each in self.groups}
        return [
            [Completion(tuple(answer), (self.logp,) * len(answer), "stop") for answer in known[tuple(request.prompt)]]
            for request in requests
        ]

    def judge(self, group: Judged) -> list[float]:
        """The rewards of the group with these answers."""
        [found] = [each for each in self.groups if tuple(each.answers[0]) == tuple(group.tokens[0])]
        return found.rewards

    def sync(self, model: Any, version: int) -> None:
        """There are no weights."""

    def close(self) -> None:
        """There is nothing to free."""


def arguments(spec: Spec, folder: str, rows: int, **options: Any) -> TrainingArguments:
    """Of one device, nothing reported or saved; activations kept."""
    settings = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False}
    return TrainingArguments(
        str(Path(SCRATCH.name) / folder),
        use_cpu=spec.device == "cpu",
        bf16=spec.dtype == "bfloat16",
        per_device_train_batch_size=rows,
        **{**settings, **options},  # type: ignore[arg-type]
    )


def _trainer(
    spec: Spec, algorithm: Any, data: Any, *, rows: int = ROWS, layers: Layers = as_they_are, **online: Any
) -> PostTrainer:
    args = arguments(spec, algorithm.name, rows, max_steps=1)
    tokenizer = make_tokenizer(spec.vocabulary)
    model = make_model(spec)
    trainer = PostTrainer(model, algorithm, tokenizer=tokenizer, train_dataset=data, args=args, **online)
    layers(model)
    return trainer


def _contender(trainer: PostTrainer, name: str, collection: Collection) -> Contender:
    learner, model = trainer._learner, trainer.model
    assert model is not None
    model.train()

    def step() -> float:
        planned = learner.step(learner.open(model, collection), 0, 0.0)
        total = 0.0
        for micro in planned.micro:
            output = learner.loss(model, planned, micro).output
            output.loss.backward()
            total += float(output.metrics[NATIVE[name]])
        return total

    return Contender(step, list(model.parameters()))


def _row(prompt: list[int], completion: list[int]) -> Row:
    return Row(np.array(prompt, np.int32), np.array(completion, np.int32), np.ones(len(completion), np.bool_))


@torch.no_grad()
def _with_start_logp(model: Any, collection: Collection) -> Collection:
    """The collection with the reference's log-probs, of the model's own full logits: [B, T], one row at a time."""
    kept = torch.zeros(collection.batch.loss_mask.shape)
    for i, row in enumerate(collection.rows):
        ids = torch.tensor(np.concatenate([row.prompt, row.completion]), dtype=torch.long)[None].to(model.device)
        logp: Tensor = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        tokens = logp.gather(1, ids[0, 1:, None])[-len(row.completion) :, 0]
        kept[i, : len(row.completion)] = tokens.cpu()
    return collection.with_batch(collection.batch.replace(ref_logp=kept))
