"""The trainer: transformers' loop, with our own steps in it. The only file that knows the loop.

The parent runs with one batch per optimizer step. `get_batch_samples` turns its ticket into the step's collection;
`training_step` runs any number of our micro-batches over it, each divided by the counts of the whole step, and lets ranks
meet in the last one only. Rows and their order are a pure function of (seed, step).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from posttrain.data.chat import Encoder
from posttrain.data.collate import Collection, collect_demonstrations, micro_batches, model_inputs
from posttrain.data.config import DataConfig, PathSource
from posttrain.data.order import step_indices
from posttrain.data.prepare import examples
from posttrain.data.rows import Example, Row
from posttrain.data.sources import Record
from posttrain.errors import NonFiniteError, SetupError
from posttrain.estimator import Algorithm, LossOutput, policy_gradient_loss
from posttrain.metrics import Listener, MetricFiles, Shares, with_intervals
from posttrain.models import disable_dropout, eos_ids
from posttrain.reference import Reference
from posttrain.scoring import check_head, score
from posttrain.types import Batch


class PostTrainer(Trainer):
    """transformers' Trainer for any `Algorithm` over demonstrations or preference pairs.

    Args:
        model: a causal language model, or a peft model over one.
        algorithm: from `build_algorithm`.
        tokenizer: for padding, and for data sets that are not examples yet.
        train_dataset: prepared `Example`s, or a data set with TRL's columns, rendered with the tokenizer's chat template.
        eval_dataset: the same by name, for the validation loss.
        args: rows of a step are per_device_train_batch_size × gradient_accumulation_steps × ranks, and a micro-batch has
            at most per_device_train_batch_size rows of each rank; read once, the parent runs with 1.
        micro_batch_tokens: a further bound, on the padded tokens of a micro-batch.
        listeners: besides `metrics.jsonl` and `eval.jsonl` in args.output_dir.
        sample_evaluation: step → metrics of sampled answers, called at each evaluation.
        start_metrics: written with the first step.
        temperature: of the sampling distribution that log-probs are of.

    Raises:
        SetupError: the algorithm needs rollouts or a window of updates, the model's head is unsuitable, several devices
            in one process, or float16.
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
        micro_batch_tokens: int | None = None,
        listeners: Sequence[Listener] = (),
        sample_evaluation: Callable[[int], dict[str, float]] | None = None,
        start_metrics: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        callbacks: list[Any] | None = None,
    ) -> None:
        _check(algorithm, args)
        self._algorithm, self._temperature, self._tokenizer = algorithm, temperature, tokenizer
        self._examples = self._as_examples(model, train_dataset)
        evaluated = {name: self._as_examples(model, data) for name, data in (eval_dataset or {}).items()}
        self._micro_rows, self._micro_tokens = args.per_device_train_batch_size, micro_batch_tokens
        self._rows_per_step = self._micro_rows * args.gradient_accumulation_steps * args.world_size
        args = copy.copy(args)
        args.gradient_accumulation_steps = 1
        args.remove_unused_columns, args.ignore_data_skip, args.logging_nan_inf_filter = False, True, False
        if args.max_steps <= 0:
            args.max_steps = math.ceil(args.num_train_epochs * len(self._examples) / self._rows_per_step)
        if algorithm.needs.exact_logp:
            disable_dropout(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._examples,  # type: ignore[arg-type]
            eval_dataset=evaluated or {"none": []},  # type: ignore[arg-type]  # the parent asks for one
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        check_head(self.model, len(tokenizer))
        self._eval_examples = evaluated
        for theirs in (PrinterCallback, ProgressCallback):
            self.remove_callback(theirs)
        self._reference = Reference(self.model) if algorithm.needs.reference else None
        self.metric_files = MetricFiles(Path(str(args.output_dir)))
        self.listeners: list[Listener] = [self.metric_files, *listeners] if self.is_world_process_zero() else []
        self._sample_evaluation = sample_evaluation
        self._record: dict[str, float] = dict(start_metrics or {})
        self._recorded_step: int | None = None
        self._clock = time.monotonic()

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        for listener in self.listeners:
            listener.on_start(self.state.global_step, self.args.max_steps)
        return super()._prepare_for_training(*arguments, **options)

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
        step = self.state.global_step
        chosen = step_indices(len(self._examples), self._rows_per_step, step, self.args.seed)
        progress = step / self.args.max_steps
        return [collect_demonstrations([self._examples[i] for i in chosen], progress=progress)], None

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all micro-batches of the step; returns the loss of the step."""
        collection: Collection = inputs
        self._clock = time.monotonic()
        model.train()
        shares = Shares()
        state, deepspeed = self.accelerator.gradient_state, self.is_deepspeed_enabled
        options = {"scale_wrt_gas": False} if deepspeed else {}
        parts, counts, batch = self._plan(collection)
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            state._set_sync_gradients(last)
            meeting = contextlib.nullcontext() if last or deepspeed else self.accelerator.no_sync(model)
            with meeting:
                output = self._loss(model, collection, batch, part, counts)
                self.accelerator.backward(output.loss * self.args.world_size, **options)
            shares.add(output.metrics)
            total += output.loss.detach().double()
        metrics = shares.total(self.accelerator)
        self._refuse_non_finite(metrics["loss"], "loss")
        self._record.update(metrics)
        self._record["train/tokens"] = float(collection.tokens)
        return (total * self.args.world_size).to(torch.get_default_dtype())

    def _plan(self, collection: Collection) -> tuple[list[list[int]], dict[str, Tensor], Batch]:
        """This rank's micro-batches, as units of the collection; the step's counts; and the prepared batch.

        Rows that carry no loss are left out, after the counts are made.
        """
        batch = self._algorithm.prepare(collection.batch)
        counts = {name: count.to(self.args.device) for name, count in self._algorithm.counts(batch).items()}
        carries = batch.loss_mask.any(-1).tolist()
        units = [u for u, rows in enumerate(collection.units) if any(carries[r] for r in rows)]
        lengths = [len(collection.units[u]) * max(len(collection.rows[r]) for r in collection.units[u]) for u in units]
        dealt = micro_batches(lengths, ranks=self.args.world_size, rows=self._micro_rows, tokens=self._micro_tokens)[
            self.args.process_index
        ]
        return [[units[i] for i in part] for part in dealt] or [[]], counts, batch

    def _loss(
        self, model: nn.Module, collection: Collection, batch: Batch, part: list[int], counts: Mapping[str, Tensor]
    ) -> LossOutput:
        """The loss of one micro-batch. An empty one runs a row without loss, for every rank must run backward."""
        index = [row for unit in part or [0] for row in collection.units[unit]]
        local = batch.take(index)
        if not part:
            local = local.replace(loss_mask=torch.zeros_like(local.loss_mask))
        with self.accelerator.autocast():  # policy and reference alike: where they agree, they agree exactly
            return self._scored_loss(model, [collection.rows[r] for r in index], local, counts)

    def _scored_loss(self, model: nn.Module, rows: Sequence[Row], local: Batch, counts: Mapping[str, Tensor]) -> LossOutput:
        device, needs = self.args.device, self._algorithm.needs
        inputs = model_inputs(rows, local, pad_id=self._tokenizer.pad_token_id or 0)
        inputs, local = inputs.to(device), local.to(device)
        teacher = None
        if self._reference is not None and needs.ref_logp:
            ref_logp = self._reference.logp(inputs, local.loss_mask, temperature=self._temperature)
            local = local.replace(ref_logp=ref_logp)
        if self._reference is not None and needs.full_kl:
            teacher = self._reference.teacher(inputs)
        scores = score(
            model,
            inputs,
            local.loss_mask,
            temperature=self._temperature,
            entropy=needs.entropy,
            teacher=teacher,
        )
        return policy_gradient_loss(self._algorithm, scores.logp, local, scores.entropy, scores.kl, counts)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(model, grad_norm)
        self._refuse_non_finite(float(norm), "norm of the gradient")
        return norm

    def _refuse_non_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        rows = step_indices(len(self._examples), self._rows_per_step, self.state.global_step, self.args.seed)
        where = ", ".join(self._examples[i].where for i in rows[:4])
        raise NonFiniteError(
            f"Step {self.state.global_step + 1}: the {what} is {value}; no update was made of it. Its rows: {where}, … "
            "Look at the last lines of metrics.jsonl. The usual cure is a lower learning_rate or max_grad_norm, in another "
            "output_dir."
        )

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, learning_rate: float | None = None, **options: Any
    ) -> None:
        """Records the step, whatever logging_steps says, then lets the parent log, evaluate and save."""
        if self._record and self.state.global_step != self._recorded_step:
            seconds = time.monotonic() - self._clock
            self._recorded_step = self.state.global_step
            self._record["grad_norm"] = float(grad_norm)
            self._record["learning_rate"] = float(learning_rate or 0.0)
            self._record["train/tokens_per_second"] = self._record["train/tokens"] / max(seconds, 1e-9)
            for listener in self.listeners:
                listener.on_step(self.state.global_step, self._record)
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
        collection = collect_demonstrations(data, progress=1.0)
        model: Any = self.model
        training, shares = model.training, Shares()
        model.eval()
        parts, counts, batch = self._plan(collection)
        for part in parts:
            shares.add(self._loss(model, collection, batch, part, counts).metrics)
        model.train(training)
        return with_intervals(shares.total(self.accelerator), len(data))

    def floating_point_ops(self, inputs: Any) -> int:
        """6 operations for each parameter and token."""
        model: Any = self.model
        return 6 * sum(p.numel() for p in model.parameters()) * inputs.tokens

    def _as_examples(self, model: Any, data: Any) -> list[Example]:
        if len(data) and isinstance(data[0], Example):
            return list(data)
        config = DataConfig(train=PathSource(path=""), chat_template=bool(self._tokenizer.chat_template))
        encoder = Encoder(self._tokenizer, config, eos_ids(model, self._tokenizer))
        records = (Record(f"row {number}", dict(columns)) for number, columns in enumerate(data, 1))
        return examples(records, encoder, preference=self._algorithm.needs.preference)[0]


def _check(algorithm: Algorithm, args: TrainingArguments) -> None:
    needs = algorithm.needs
    if needs.rollouts or needs.updates > 1 or needs.demonstration not in ("none", "row"):
        raise SetupError(
            f"{algorithm.name} trains on collections (rollouts, or a window of several updates), which this version does "
            "not make. Its loss is there: policy_gradient_loss, with a loop of your own."
        )
    if args.n_gpu > 1:
        raise SetupError(
            "Several devices in one process are not supported: choose one, by CUDA_VISIBLE_DEVICES=0, "
            "for instance. In a program of your own PostTrainer runs under torchrun, one process for each."
        )
    if args.fp16:
        raise SetupError("float16 is not supported: use bf16, or float32.")
