"""The trainer: transformers' loop, with our own steps in it. The only file that knows the loop.

The parent runs with one batch per optimizer step. `get_batch_samples` turns its ticket into the step's collection;
`training_step` runs any number of our micro-batches over it, each divided by the counts of the whole step, and lets ranks
meet in the last one only. Rows and their order are a pure function of (seed, step).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from posttrain.budget import Budget
from posttrain.collection import Collection
from posttrain.collectors import as_examples, collected_data
from posttrain.data.collate import collect_demonstrations
from posttrain.data.rows import Example
from posttrain.distributed import ranks
from posttrain.distributed.config import DistributedConfig
from posttrain.distributed.self_check import check_accumulation
from posttrain.distributed.sharding import check_mode, elements, mode_in_effect, reshard, shard
from posttrain.estimator import Algorithm
from posttrain.learner import Learner, Step
from posttrain.loop_arguments import check_devices, for_the_parent
from posttrain.metrics import Listener, RunFiles, Shares, with_intervals
from posttrain.models import disable_dropout
from posttrain.nonfinite import LIMIT, NonFinite
from posttrain.reference import Reference
from posttrain.rewards.base import Reward, Weighted
from posttrain.rollout.collect import RESAMPLES
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.sampler_gap import gap_metrics
from posttrain.scoring import check_head


class PostTrainer(Trainer):
    """transformers' Trainer for any `Algorithm`, over demonstrations, preference pairs or rollouts.

    Args:
        model: a causal language model, or a peft model over one.
        algorithm: from `build_algorithm`.
        tokenizer: for padding, and for data sets that are not prepared yet.
        train_dataset: prepared `Example`s (`Problem`s for an algorithm over rollouts), or a data set with TRL's columns,
            rendered with the tokenizer's chat template.
        eval_dataset: `Example`s or such a data set by name, for the validation loss.
        args: rows of a step (rollouts, for an algorithm over them) are per_device_train_batch_size ×
            gradient_accumulation_steps × ranks, and a micro-batch has at most per_device_train_batch_size rows of each rank;
            read once, the parent runs with 1.
        demonstrations: `Example`s or a data set, for an algorithm that trains on a set of its own beside the questions.
        rewards: judge rollouts; a reward by itself has weight 1.
        engine: samples rollouts.
        sampling: of rollouts; log-probs are of the distribution at its temperature.
        mask_cut_off: rollouts that max_tokens cut off carry no loss.
        resamples: rounds of replacing groups without signal, where the algorithm asks for it.
        micro_batch_tokens: a further bound, on the padded tokens of a micro-batch.
        budget: ends the run before max_steps, and is what progress is measured by.
        distributed: how the model is spread over the ranks; the modes of DeepSpeed need args.deepspeed as well. What is in
            effect must be what it says.
        nonfinite_limit: steps in a row that are left out, since something in them is not finite, before the run ends.
        listeners: besides the files in args.output_dir.
        sample_evaluation: step → metrics of sampled answers, called at each evaluation.
        start_metrics: written with the first step. evaluate_first: there is an evaluation before it.

    Raises:
        SetupError: what the algorithm needs cannot be had, an unsuitable head, several devices in one process, or float16.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        algorithm: Algorithm,
        *,
        tokenizer: Any,
        train_dataset: Any,
        eval_dataset: Mapping[str, Any] | None = None,
        args: TrainingArguments,
        demonstrations: Any = (),
        rewards: Sequence[Reward | Weighted] = (),
        engine: RolloutEngine | None = None,
        sampling: Sampling | None = None,
        mask_cut_off: bool = False,
        resamples: int = RESAMPLES,
        micro_batch_tokens: int | None = None,
        budget: Budget | None = None,
        distributed: DistributedConfig | None = None,
        nonfinite_limit: int = LIMIT,
        listeners: Sequence[Listener] = (),
        sample_evaluation: Callable[[int], dict[str, float]] | None = None,
        start_metrics: Mapping[str, float] | None = None,
        evaluate_first: bool = False,
        callbacks: list[Any] | None = None,
    ) -> None:
        check_devices(args)
        self._algorithm, self._tokenizer, self._distributed = algorithm, tokenizer, distributed
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        data, self._collector = collected_data(
            train_dataset,
            algorithm,
            model,
            tokenizer,
            rows=rows,
            seed=args.seed,
            rewards=rewards,
            engine=engine,
            sampling=sampling,
            demonstrations=demonstrations,
            mask_cut_off=mask_cut_off,
            resamples=resamples,
        )
        self._eval_examples = {
            name: as_examples(examples, model, tokenizer, preference=algorithm.needs.preference)
            for name, examples in (eval_dataset or {}).items()
        }
        if algorithm.needs.exact_logp:
            disable_dropout(model)
        reference = Reference(model) if algorithm.needs.reference else None
        check_head(model, len(tokenizer))
        if distributed is not None:
            shard(model, distributed, bf16=args.bf16)
        super().__init__(
            model=model,
            args=for_the_parent(args, len(data) * max(algorithm.needs.rollouts, 1) / rows),
            train_dataset=data,  # type: ignore[arg-type]
            eval_dataset=self._eval_examples or {"none": []},  # type: ignore[arg-type]  # the parent asks for one
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        vars(self.accelerator.ddp_handler)["gradient_as_bucket_view"] = True  # else all gradients are there twice
        if reference is not None:
            reference.place(self.accelerator, distributed)
        self._learner = Learner(
            algorithm,
            reference,
            self.accelerator,
            pad_id=tokenizer.pad_token_id or 0,
            temperature=sampling.temperature if sampling is not None and algorithm.needs.rollouts else 1.0,
            rows=args.per_device_train_batch_size,
            tokens=micro_batch_tokens,
        )
        self.run_files = RunFiles(Path(str(args.output_dir)))
        self.listeners: list[Listener] = [self.run_files, *listeners] if self.is_world_process_zero() else []
        self._sample_evaluation, self._evaluate_first, self.began = sample_evaluation, evaluate_first, False
        self._nonfinite = NonFinite(Path(str(args.output_dir)), nonfinite_limit)
        self._opened: Collection | None = None
        self._record: dict[str, float] = dict(start_metrics or {})
        self._recorded_step: int | None = None
        self._budget, self._clock, self._step_began = budget, time.monotonic(), 0.0

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        for listener in self.listeners:
            listener.on_start(self.state.global_step, self.args.max_steps)
        if self.is_deepspeed_enabled:
            check_accumulation(self.accelerator)
        reshard(self.model)  # type: ignore[arg-type]
        prepared: Any = super()._prepare_for_training(*arguments, **options)
        self.mode = mode_in_effect(self.accelerator, prepared[0])
        check_mode(self._distributed, self.mode)
        for listener in self.listeners:
            listener.on_mode(self.mode, self.args.world_size)
        if self._evaluate_first and not self.state.global_step:
            self.evaluate()
        self.began = True
        return prepared

    def get_train_dataloader(self) -> DataLoader[int]:
        """Tickets: one for each optimizer step."""
        return DataLoader(range(self.args.max_steps), batch_size=None)  # type: ignore[arg-type]

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The step's collection, in place of a ticket."""
        ticket = next(epoch_iterator, None)
        if ticket is None:
            return [], None
        self._step_began = time.monotonic()
        done, updates = self.state.global_step, self._algorithm.needs.updates
        progress = min(max(done / self.args.max_steps, self._spent()), 1.0)
        if self._opened is None or done % updates == 0:
            self._opened = self._collected(done, progress)
        return [self._learner.step(self._opened, done % updates, progress)], None

    def _spent(self) -> float:
        budget, step = self._budget, self.state.global_step
        return 0.0 if budget is None else ranks.told(budget.share(self.run_files.steps_until(step)), "the budget")

    def _collected(self, done: int, progress: float) -> Collection:
        """The collection that step `done` belongs to, with its advantages. A resumed run collects a broken-off one anew."""
        with self.accelerator.autocast():
            collection = self._collector.collect(self.model, done - done % self._algorithm.needs.updates, progress)
        for listener in self.listeners if collection.samples else ():
            listener.on_rollouts(done + 1, collection.samples)
        self._record.update(collection.metrics)
        return self._learner.open(self.model, collection)  # type: ignore[arg-type]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all micro-batches of the step; returns the loss of the step."""
        step: Step = inputs
        self._clock = time.monotonic()
        self._nonfinite.begin(self.state.global_step + 1, step)
        model.train()
        shares, state, deepspeed = Shares(), self.accelerator.gradient_state, self.is_deepspeed_enabled
        options = {"scale_wrt_gas": False} if deepspeed else {}
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for i, micro in enumerate(step.micro):
            last = i == len(step.micro) - 1
            state._set_sync_gradients(last)
            meeting = contextlib.nullcontext() if last or deepspeed else self.accelerator.no_sync(model)
            with meeting:
                scored = self._learner.loss(model, step, micro)
                self._nonfinite.see(micro, scored.finite)
                total += scored.output.loss.detach().double()
                loss = scored.output.loss * math.nan if last and self._nonfinite.spoils(total) else scored.output.loss
                with ranks.waiting(f"the gradients of step {self.state.global_step + 1}"):
                    self.accelerator.backward(loss * self.args.world_size, **options)
            shares.add(scored.output.metrics)
        metrics = gap_metrics(shares.total(self.accelerator), step.sampled)
        self._record.update({name: value for name, value in metrics.items() if math.isfinite(value)})
        self._record |= {"train/tokens": step.tokens, "train/skipped_rows": step.skipped, "step/tokens": step.offered}
        self._record["train/demonstrated"] = step.demonstrated / max(step.sampled + step.demonstrated, 1)
        return (total * self.args.world_size).nan_to_num().to(torch.get_default_dtype())

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(model, grad_norm)
        left_out = not math.isfinite(float(norm))
        if not self.is_deepspeed_enabled:  # which leaves such a step out itself
            vars(self.optimizer)["_is_overflow"] = left_out  # what accelerate asks before the schedule goes on
            if left_out:
                model.zero_grad(set_to_none=True)  # an optimizer passes over parameters that have no gradient
        self._nonfinite.settle(float(norm))
        self._record["train/left_out"] = float(left_out)
        return 0.0 if left_out else norm

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, learning_rate: float | None = None, **options: Any
    ) -> None:
        """Records the step, whatever logging_steps says, then lets the parent log, evaluate and save."""
        if self._record and self.state.global_step != self._recorded_step:
            seconds = time.monotonic() - self._clock
            self._recorded_step = self.state.global_step
            self._record |= {"grad_norm": float(grad_norm), "learning_rate": float(learning_rate or 0.0)}
            self._record["train/tokens_per_second"] = self._record["train/tokens"] / max(seconds, 1e-9)
            self._record["step/seconds"] = time.monotonic() - self._step_began
            for listener in self.listeners:
                listener.on_step(self.state.global_step, self._record)
            if self._spent() >= 1:
                self.control.should_training_stop = True
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, learning_rate=learning_rate, **options)
        self._record = {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To the trackers: what the parent says of a step, and all that the step recorded.

        transformers writes `eval_x` as `eval/x` and any other name as `train/<name>`.
        """
        recorded = {name.removeprefix("train/"): value for name, value in self._record.items()}
        super().log({**recorded, **logs} if "grad_norm" in logs else logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # type: ignore[override]
        """The algorithm's loss and metrics on every evaluation set, and sampled answers. Nothing is trained."""
        metrics: dict[str, float] = {}
        for name, data in self._eval_examples.items():
            metrics.update({f"eval/{name}/{key}": value for key, value in self._evaluated(data).items()})
        if self._sample_evaluation is not None:
            with self.accelerator.autocast():
                metrics.update(self._sample_evaluation(self.state.global_step))
        for listener in self.listeners:
            listener.on_evaluation(self.state.global_step, metrics)
        self.log({name.replace("eval/", "eval_", 1): value for name, value in metrics.items()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _evaluated(self, data: list[Example]) -> dict[str, float]:
        collection = self._learner.open(self.model, collect_demonstrations(data, progress=1.0))  # type: ignore[arg-type]
        step = self._learner.step(collection, 0, 1.0)
        model: Any = self.model
        training, shares = model.training, Shares()
        model.eval()
        for micro in step.micro:
            shares.add(self._learner.loss(model, step, micro).output.metrics)
        model.train(training)
        return with_intervals(shares.total(self.accelerator), len(data))

    def floating_point_ops(self, inputs: Any) -> int:
        """6 operations for each parameter and token."""
        return 6 * sum(map(elements, self.model.parameters())) * inputs.tokens  # type: ignore[union-attr]
