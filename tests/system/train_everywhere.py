"""Trains every algorithm for a few SGD steps on however many ranks it was started with, in the mode that it is told, and
saves the parameters; then steps of unequal numbers of micro-batches, an adapter, and steps that are not finite.

Started by test_two_ranks.py with python, and with torchrun. Algorithms over rollouts get a scripted collection: what their
collector would give, as a function of (row, step) alone.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from cases import first_of_needs
from posttrain import Needs, PostTrainer
from posttrain.algorithms import build_algorithm, example_values
from posttrain.data.rows import Example
from posttrain.distributed import ranks, self_check
from posttrain.distributed.deepspeed import deepspeed_config
from posttrain.distributed.launch import leave
from posttrain.distributed.sharding import elements, elements_here, gathered_parameters, whole
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Origin
from posttrain.model.saving import save_model
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import Adapter
from posttrain.train import trainer
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import DemonstrationCollector, collect_demonstrations
from posttrain.train.collect.order import order_of
from posttrain.train.learner import MicroLoss, Step
from posttrain.train.options import Execution
from posttrain.train.updates.ema import EMA
from posttrain.train.updates.ewc import EWC
from posttrain.train.updates.l2_sp import L2SP
from posttrain.train.updates.momentum_reset import MomentumReset
from posttrain.train.updates.reptile import Reptile
from posttrain.train.updates.soft_mask import SoftMask
from posttrain.train.updates.trainable.half import Half
from posttrain.train.updates.trainable.lisa import Lisa
from tiny import make_examples, make_model, make_teacher, parameters

STEPS, OF_ONE_UPDATE, ROWS = 3, 2, 8
MODES_OF_ALL = ("ddp", "fsdp2")  # DeepSpeed takes a second for each trainer that it makes, and knows parameters to float32
PLAINLY = ("sft", "asft", "grpo", "dpo")  # trained by padded rows and a head of two passes as well


class Scripted:
    """A collector of demonstrations, with groups of four rows and the rewards that algorithms over rollouts need.

    The last row of a group is its demonstration, or begins with one, where the algorithm asks for it.
    """

    def __init__(self, examples: list[Example], algorithm: Algorithm, **_: Any) -> None:
        self._updates, self._rollouts = algorithm.needs.updates, bool(algorithm.needs.rollouts)
        self._shows_right = algorithm.needs.shows_right
        self._shown = {"none": 0, "prefix": 2}.get(algorithm.needs.demonstration, 1000)
        self._plain = DemonstrationCollector(examples, order_of(len(examples), ROWS, 0), updates=self._updates)

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        collection = self._plain.collect(model, step, progress)
        if not self._rollouts:
            return collection
        rng = torch.Generator().manual_seed(step)
        shape = collection.batch.loss_mask.shape
        shown = (torch.arange(shape[0])[:, None] % 4 == 3) & (torch.arange(shape[1]) < self._shown)
        batch = collection.batch.replace(
            correct=torch.rand(shape[0], generator=rng) < 0.3,
            reward=torch.rand(shape[0], generator=rng, dtype=torch.float64),
            group=torch.arange(shape[0]) // 4,
            behavior_logp=-3 * torch.rand(shape, generator=rng, dtype=torch.float64),
            origin=torch.where(shown, Origin.DEMO, Origin.ROLLOUT),
            baseline=torch.rand(shape[0] // 4, generator=rng, dtype=torch.float64).repeat_interleave(4),
            taught=torch.rand(shape[0], generator=rng) < 0.6 if self._shows_right else None,
        )
        return collection.with_batch(batch)

    def state(self) -> dict[str, Any]:
        return {}

    def ahead(self, step: int) -> dict[int, Collection]:
        return {}

    def kept(self) -> None:
        return None

    def restore(self, state: Any, ahead: Any = None, kept: Any = None) -> None:
        pass


class Counting(PostTrainer):
    """Notes how many micro-batches each step has, and what this rank holds of the model; `start` are its first parameters."""

    start: torch.Tensor

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        prepared = super()._prepare_for_training(*arguments, **options)
        self.micro_batches: list[int] = []
        model: Any = self.model
        self.held = elements_here(model), sum(map(elements, model.parameters()))
        return prepared

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self.micro_batches.append(len(inputs.micro))
        return super().training_step(model, inputs, num_items_in_batch)


def rate_of(needs: Needs) -> float:
    """One at which SGD moves parameters by some thousandths, so that float32 tells them apart."""
    if needs.corrects:
        return 1e-8  # the scripted sampler is far away, and who corrects for it by itself would take steps of hundreds
    if needs.collision:
        return 1.0  # a policy that would hardly write these pairs hardly moves
    return 1e-3 if needs.preference else 0.05


def make_trainer(algorithm: Algorithm, mode: str, folder: Path, *, plain: bool = False, **options: Any) -> Counting:
    gc.freeze()  # accelerate and DeepSpeed collect garbage at each start, by looking at all that was imported and made before
    model, tokenizer = make_model(adapter=options.pop("adapter", None))
    start = whole_parameters(model) if mode in MODES_OF_ALL else None
    distributed = DistributedConfig.model_validate({"mode": mode, "offload": options.pop("offload", False)})
    defaults = {
        "output_dir": str(folder / algorithm.name),
        "use_cpu": True,
        "max_steps": STEPS if algorithm.needs.updates > 1 else OF_ONE_UPDATE,
        "per_device_train_batch_size": ROWS // ranks.world(),
        "optim": "sgd",
        "learning_rate": rate_of(algorithm.needs),
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "deepspeed": deepspeed_config(distributed, bf16=False) if ranks.world() > 1 else None,
    }
    needs, moves = algorithm.needs, options.pop("moves", {})
    told = {"crossed": needs.crossed, "worth": needs.weight, "template": needs.teacher_template}
    rows: Any = make_examples(model, tokenizer, sides=needs.sides, **told)  # type: ignore[arg-type]
    taught: dict[str, Any] = {"teachers": {"wide": make_teacher()}} if algorithm.needs.given_teacher else {}
    switches: dict[str, Any] = {"head": "two_pass", "layout": "padded"} if plain else {}
    trained = Counting(
        model,
        algorithm,
        tokenizer=tokenizer,
        train_dataset=rows,
        args=TrainingArguments(**{**defaults, **options}),
        execution=Execution(micro_batch_tokens=150, distributed=distributed, **moves, **switches),
        **taught,
    )
    trained.start = whole_parameters(trained.model) if start is None else start
    return trained


def whole_parameters(model: Any) -> torch.Tensor:
    """Every parameter by name, whole on every rank, in the order of the names."""
    named = sorted(model.named_parameters())
    with gathered_parameters(parameter for _, parameter in named):
        return torch.cat([whole(parameter.detach()).double().flatten() for _, parameter in named])


def change(trained: Counting) -> torch.Tensor:
    trained.train()
    return whole_parameters(trained.model) - trained.start


class Sized:
    """A collector of so many rows for each step."""

    def __init__(self, examples: list[Example], rows: tuple[int, ...]) -> None:
        self._examples, self._rows = examples, rows

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        first = sum(self._rows[:step])
        return collect_demonstrations(self._examples[first : first + self._rows[step]], progress=progress)


class Spoilt(Sized):
    """The second step is one that is not finite on the last rank; without `spoil` there is none in its place."""

    def __init__(self, examples: list[Example], spoil: str | None) -> None:
        super().__init__(examples, (4,) * 6)
        self._spoil = spoil

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        return super().collect(model, step if self._spoil is None or step < 2 else step - 1, progress)


class NanBackwards(torch.autograd.Function):
    """A number as it is, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * torch.nan


def spoil(trained: Counting, what: str) -> None:
    """Makes the loss, or the gradient, of step 2 NaN on the last rank alone."""
    honest, last = trained._learner.loss, ranks.rank() == ranks.world() - 1

    def loss(model: Any, step: Step, micro: Any, *made: Any) -> MicroLoss:
        scored = honest(model, step, micro, *made)
        if trained.state.global_step != 1 or not last:
            return scored
        if what == "gradient":
            return MicroLoss(dataclasses.replace(scored.output, loss=NanBackwards.apply(scored.output.loss)), scored.finite)
        output = dataclasses.replace(scored.output, loss=scored.output.loss * torch.nan)
        return MicroLoss(output, torch.zeros_like(scored.finite))

    trained._learner.loss = loss  # type: ignore[method-assign]


def after_a_bad_step(what: str | None, mode: str, folder: Path) -> torch.Tensor:
    """The parameters after three updates, with a step between them that is not finite, or without."""
    options = {"optim": "adamw_torch", "lr_scheduler_type": "linear", "learning_rate": 1e-2, "num_train_epochs": 1}
    trained = make_trainer(build_algorithm("sft"), mode, folder / str(what), **options, max_steps=8)
    trained.run_state.collector = Spoilt(trained.train_dataset, what)  # type: ignore[arg-type]
    if what is not None:
        spoil(trained, what)
    trained.add_callback(EndAfter(3 if what is None else 4))
    return change(trained)


def saved(trained: Counting, folder: Path) -> torch.Tensor:
    """The parameters of the model that is saved and loaded again, on the first rank."""
    save_model(trained.model, trained.processing_class, folder)
    unset_hf_deepspeed_config()  # it would be loaded spread over the ranks
    return parameters(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))


def goes_on_as_if_never_broken_off(mode: str, folder: Path) -> bool:
    """Four steps, and the last two of them again from the checkpoint in the middle: the same parameters, to the last bit."""
    options: dict[str, Any] = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 4, "save_steps": 2}
    ended: list[torch.Tensor] = []
    for checkpoint in (None, str(folder / "broken" / "sft" / "checkpoint-2")):
        trained = make_trainer(build_algorithm("sft"), mode, folder / "broken", save_strategy="steps", **options)
        trained.train(resume_from_checkpoint=checkpoint)
        ended.append(whole_parameters(trained.model))
    return torch.equal(*ended)


def check_refuses_what_loses_micro_batches(accelerator: Any) -> bool:
    honest = self_check._update
    try:
        self_check._update = lambda model, config, micro_batches: honest(model, config, micro_batches[-1:])
        self_check.check_accumulation(accelerator)
    except SetupError as error:
        return "loses gradients of micro-batches" in str(error)
    finally:
        self_check._update = honest
    return False


class EndAfter(TrainerCallback):
    """Ends a run earlier than its schedule says."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self._steps


def main() -> None:
    target, mode = Path(sys.argv[1]), sys.argv[2]
    ranks.join(120, cpu=True)
    order = order_of(ROWS, ROWS, 0)

    def scripted(data: Any, algorithm: Any, *_: Any, **__: Any) -> Any:
        return data, Scripted(data, algorithm), order

    setattr(trainer, "collected_data", scripted)  # noqa: B010
    folder = target.parent / target.stem
    moved, facts = dict[str, Any](), dict[str, Any]()
    values = {algorithm.name: algorithm for algorithm in example_values()}
    values["pass_k"] = build_algorithm("pass_k", rollouts=4, k=2)  # of all four answers to a question one is right, or none
    values = values if mode in MODES_OF_ALL else {name: values[name] for name in first_of_needs(values.values())}
    values["grpo of two updates"] = build_algorithm("grpo", updates=2, kl_in="reward", kl_coef={"target": 1e-3, "start": 0.1})
    values["prefix_rft of two updates"] = build_algorithm("prefix_rft", updates=2, max_tokens=64)
    for name, algorithm in values.items():
        trained = make_trainer(algorithm, mode, folder)
        moved[name] = change(trained).numpy()
        facts[name] = trained.micro_batches
    for name in PLAINLY:
        moved[f"{name} plainly"] = change(make_trainer(values[name], mode, folder, plain=True)).numpy()
    facts["goes on"] = goes_on_as_if_never_broken_off(mode, folder)
    facts["world"], facts["mode"], facts["held"] = ranks.world(), trained.mode, trained.held
    uneven = make_trainer(build_algorithm("sft"), mode, folder, per_device_train_batch_size=1, max_steps=5)
    uneven.run_state.collector = Sized(uneven.train_dataset, (2, 4, 6, 2, 1))  # type: ignore[arg-type]
    moved["uneven"], facts["uneven"] = change(uneven).numpy(), uneven.micro_batches
    adapted = make_trainer(build_algorithm("dpo"), mode, folder, adapter=Adapter(r=4), learning_rate=0.05)
    moved["lora"] = change(adapted).numpy()
    moved["saved"] = saved(adapted, folder / "final").numpy()
    moved["offload"] = change(make_trainer(build_algorithm("sft"), mode, folder, offload=mode != "ddp")).numpy()
    moved["half"] = change(make_trainer(values["sft"], mode, folder, moves={"trainable": Half()})).numpy()
    if mode == "ddp":
        rules = {"trainable": Lisa(layers=1, every=1), "update": [L2SP(strength=1), Reptile(every=2), EMA(decay=0.5)]}
        moved["rules"] = change(make_trainer(values["sft"], mode, folder, moves=rules)).numpy()
        kept = {rule: make_examples(*make_model(), rows=5) for rule in ("ewc", "soft_mask")}
        learning = [EWC(strength=10, fisher="sampled"), SoftMask(), MomentumReset(every=2)]
        rules = {"update": learning, "update_rows": kept}
        learner = make_trainer(values["sft"], mode, folder, moves=rules, optim_args="momentum=0.9")
        moved["rules that learn"] = change(learner).numpy()
    facts["check refuses"] = mode.startswith("zero") and check_refuses_what_loses_micro_batches(adapted.accelerator)
    for what in (None, "loss", "gradient"):
        moved[f"bad {what}"] = after_a_bad_step(what, mode, folder).numpy()
    if ranks.rank() == 0:
        np.savez(target, **moved)
        target.with_suffix(".json").write_text(json.dumps(facts))
    if dist.is_initialized():
        dist.destroy_process_group()
        leave(SystemExit())


if __name__ == "__main__":
    main()
