"""The trainer: a model, an algorithm, data, and what else a recipe has, put together. How it trains is in loop.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from posttrain.distributed.sharding import shard
from posttrain.distributed.signals import Interruption
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.load import disable_dropout
from posttrain.model.reference import Reference
from posttrain.model.trials import settle_head, settle_layout
from posttrain.rewards.base import Reward, Weighted
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.training import Budget, HeadPath, RowLayout
from posttrain.train.collect.make import as_examples, collected_data
from posttrain.train.collect.rollouts import RESAMPLES
from posttrain.train.learner import Learner
from posttrain.train.loop import Loop
from posttrain.train.watch.nonfinite import LIMIT, NonFinite
from posttrain.train.watch.records import Listener, RunFiles
from posttrain.train.watch.trackers import welcome


class PostTrainer(Loop):
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
        micro_batch_tokens: a further bound, on the tokens of a micro-batch that the model reads, padding included.
        head, layout: how the same numbers are made; what the model cannot take is not taken, and said.
        budget: ends the run before max_steps, and is what progress is measured by.
        distributed: how the model is spread over the ranks; the modes of DeepSpeed need args.deepspeed as well. What is in
            effect must be what it says.
        nonfinite_limit: steps in a row that are left out, since something in them is not finite, before the run ends.
        listeners: besides the files in args.output_dir.
        sample_evaluation: step → metrics of sampled answers, called at each evaluation.
        start_metrics: written with the first step. evaluate_first: there is an evaluation before it.
        interruption: signals that end the run between two steps, with a checkpoint; none are listened to without it.
        facts: are written into the manifest of each checkpoint.

    Raises:
        SetupError: what the algorithm needs cannot be had, an unsuitable head, several devices in one process, or float16.
    """

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
        head: HeadPath = "one_pass",
        layout: RowLayout = "shared",
        budget: Budget | None = None,
        distributed: DistributedConfig | None = None,
        nonfinite_limit: int = LIMIT,
        listeners: Sequence[Listener] = (),
        sample_evaluation: Callable[[int], dict[str, float]] | None = None,
        start_metrics: Mapping[str, float] | None = None,
        evaluate_first: bool = False,
        interruption: Interruption | None = None,
        facts: Mapping[str, Any] | None = None,
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
        head, layout = settle_head(model, head, len(tokenizer)), settle_layout(model, layout, len(tokenizer))
        if head == "whole" and algorithm.needs.full_kl:
            raise SetupError(f"{algorithm.name} compares whole distributions: an output layer that is a matrix is needed.")
        reference = Reference(model) if algorithm.needs.reference else None
        if distributed is not None:
            shard(model, distributed, bf16=args.bf16)
        super().__init__(
            model=model,
            args=for_the_parent(
                args,
                len(data) * max(algorithm.needs.rollouts, 1) / rows,
                fsdp2=distributed is not None and distributed.mode == "fsdp2" and args.world_size > 1,
            ),
            train_dataset=data,  # type: ignore[arg-type]
            eval_dataset=self._eval_examples or {"none": []},  # type: ignore[arg-type]  # the parent asks for one
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        welcome(self.callback_handler)
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
            head=head,
            layout=layout,
        )
        self._reads_again = self.args.max_steps * rows > len(data)
        self.run_files = RunFiles(Path(str(args.output_dir)))
        self.listeners = [self.run_files, *listeners] if self.is_world_process_zero() else []
        self._sample_evaluation, self._evaluate_first = sample_evaluation, evaluate_first
        self._nonfinite = NonFinite(Path(str(args.output_dir)), nonfinite_limit)
        self._record, self._budget = dict(start_metrics or {}), budget
        self._interruption, self._facts, self._keep = interruption, facts or {}, args.save_total_limit


def check_devices(args: TrainingArguments) -> None:
    """Refuses several devices in one process, and float16.

    Raises:
        SetupError: says what to do.
    """
    if args.n_gpu > 1:
        raise SetupError(
            "Several devices in one process are not supported: choose one, by CUDA_VISIBLE_DEVICES=0, for instance, or start "
            "a process for each: posttrain run --processes N, or torchrun."
        )
    if args.fp16:
        raise SetupError("float16 is not supported: use bf16, or float32.")


def for_the_parent(args: TrainingArguments, steps_per_epoch: float, *, fsdp2: bool) -> TrainingArguments:
    """A copy with which the parent sees one batch for each optimizer step, and hides nothing."""
    args = copy.copy(args)
    args.save_only_model = args.save_only_model or fsdp2  # of which the parent saves nothing; we do
    args.gradient_accumulation_steps, args.save_total_limit = 1, None
    args.remove_unused_columns, args.ignore_data_skip, args.logging_nan_inf_filter = False, True, False
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * steps_per_epoch)
    return args
