"""transformers' training loop with our own steps in it. With checkpoint/checkpointed.py and optimizers/_optimized.py, all
that knows the loop.

The parent runs with one batch per optimizer step. `get_batch_samples` turns its ticket into the step's collection;
`training_step` runs any number of our micro-batches over it, each divided by the counts of the whole step, and lets ranks
meet in the last one only. Rows and their order are a pure function of (seed, step).
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import SaveStrategy

from posttrain.data.rows import Example
from posttrain.distributed import ranks
from posttrain.distributed.self_check import check_accumulation
from posttrain.distributed.sharding import check_mode, elements, is_sharded, mode_in_effect, reshard
from posttrain.errors import SetupError
from posttrain.telling import tell
from posttrain.train.checkpoint.checkpointed import Checkpointed
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations
from posttrain.train.given.arguments import for_callbacks
from posttrain.train.learner import Learner, Step
from posttrain.train.options import Watching
from posttrain.train.watch.metrics import Shares, check_gap, gap_metrics, with_intervals
from posttrain.train.watch.records import Listener
from posttrain.train.watch.trackers import Trackers
from posttrain.train.watch.watch import Watch


class Loop(Checkpointed):
    """What `PostTrainer` does while it trains. Its constructor sets what is declared here."""

    loss_is_scaled_for_ga = True
    began = False
    """Whether training began, or went on: all that comes before it has been done."""
    listeners: list[Listener]
    trackers: Trackers
    _learner: Learner
    _watching: Watching
    _eval_examples: dict[str, list[Example]]
    _reads_again: bool
    _sources: tuple[str, ...]
    _record: dict[str, float]
    _watch: Watch
    _unread: tuple[Shares, Tensor, int]
    """Of the step: its metrics, whether all in it is finite, and its rollout tokens. They are read once it is done."""
    _gap_bound: float = math.inf
    """Nats, of log-probs that an engine has sampled in this step, above which the run ends."""
    _recorded: int | None = None
    _clock = _step_began = 0.0

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        for listener in self.listeners:
            listener.on_start(self.state.global_step, self.args.max_steps)
        if self.state.global_step:
            self._record = {}  # the first step has said it
        if self.is_deepspeed_enabled:
            check_accumulation(self.accelerator)
        reshard(self.model)  # type: ignore[arg-type]
        if not self.state.global_step:
            with self._let_through():
                self.run_state.updates.learn(self.model)  # type: ignore[arg-type]
        prepared: Any = super()._prepare_for_training(*arguments, **options)
        self.mode = mode_in_effect(self.accelerator, prepared[0])
        check_mode(self._execution.distributed, self.mode)
        for listener in self.listeners:
            listener.on_mode(self.mode, self.args.world_size)
        if self._reads_again:
            with self._let_through():
                self._learner.keep_reference(self.train_dataset)  # type: ignore[arg-type]
        if self._watching.evaluate_first and not self.state.global_step:
            with self._let_through():
                self.evaluate()
        self.began = True
        return prepared

    def get_train_dataloader(self) -> DataLoader[int]:
        """Tickets: one for each optimizer step. A generator of its own, or else each start would draw from the global one."""
        return DataLoader(range(self.args.max_steps), batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The step's collection, in place of a ticket."""
        ticket = next(epoch_iterator, None)
        if ticket is None or self._is_over():
            return [], None
        self._step_began, done, state = time.monotonic(), self.state.global_step, self.run_state
        progress = self._progress = min(max(done / self.args.max_steps, self._spent()), 1.0)
        if self._execution.budget is not None:
            self._take_rate_of_this_schedule()
        if not state.within(done):
            state.opened = None
            with self._saving_when_interrupted():
                state.opened, state.begins = self._collected(done, progress), done
        assert state.opened is not None
        return [self._learner.step(state.opened, done - state.begins, progress)], None

    def _spent(self) -> float:
        budget, step = self._execution.budget, self.state.global_step
        return 0.0 if budget is None else ranks.broadcast(budget.share(self.run_files.steps_until(step)), "the budget")

    def _is_over(self) -> bool:
        return self._execution.stop_when is not None and ranks.any_of(self._watch.is_over, "whether the run is to end")

    def _end_if_over(self) -> None:
        if self._is_over():
            self.control.should_training_stop = True
            self.control.should_save = self.args.save_strategy != SaveStrategy.NO

    def _collected(self, done: int, progress: float) -> Collection:
        """The collection that begins at step `done`, with its advantages."""
        with self.accelerator.autocast():
            collection = self.run_state.collector.collect(self.model, done, progress)
        for listener in self.listeners if collection.samples else ():
            listener.on_rollouts(done + 1, collection.samples)
        opened = self.run_state.coefficients.opened(collection, lambda found: self._learner.open(self.model, found))  # type: ignore[arg-type]
        self._record.update(opened.metrics)
        return opened

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all micro-batches of the step; returns the loss of the step.

        Where the device's memory does not take them, one process does the whole step again in micro-batches of half the size.

        Raises:
            SetupError: there are several processes, or a micro-batch of one row is too large.
        """
        step: Step = inputs
        self._clock = time.monotonic()
        model.train()
        self._take_weights_of("train")
        updates, number = self.run_state.updates, self.state.global_step + 1
        updates.before(self.model, self.optimizer, number)  # type: ignore[arg-type]
        while True:
            try:
                loss = self._backward(model, step)
                updates.on_gradients(self.model, number)  # type: ignore[arg-type]
                return loss
            except torch.OutOfMemoryError as error:
                step = self._smaller(step, error)
            model.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _backward(self, model: nn.Module, step: Step) -> Tensor:
        self.run_state.nonfinite.begin(self.state.global_step + 1, step)
        shares, state, deepspeed = Shares(), self.accelerator.gradient_state, self.is_deepspeed_enabled
        options = {"scale_wrt_gas": False} if deepspeed else {}
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        parted = deepspeed or is_sharded(model)  # ranks meet in every backward pass, and else in the last
        for_them = f"the gradients of step {self.state.global_step + 1}"
        for i, (micro, made) in enumerate(self._learner.made(step)):
            last = i == len(step.micro) - 1
            state._set_sync_gradients(last)
            meeting = contextlib.nullcontext() if last or deepspeed else self.accelerator.no_sync(model)
            with meeting:
                scored = self._learner.loss(model, step, micro, made)
                self.run_state.nonfinite.see(micro, scored.finite)
                total += scored.output.loss.detach().double()
                loss = scored.output.loss
                if last:
                    self._unread = shares, self.run_state.nonfinite.sound(total), step.sampled
                    loss = loss * torch.where(self._unread[1], 1.0, math.nan)
                with ranks.waiting(for_them) if last or parted else contextlib.nullcontext():
                    self.accelerator.backward(loss * self.args.world_size, **options)
            shares.add(scored.output.metrics)
        self._record |= {"train/tokens": step.tokens, "train/skipped_rows": step.skipped, "step/tokens": step.offered}
        self._record["train/demonstrated"] = step.demonstrated / max(step.sampled + step.demonstrated, 1)
        self._record |= step.sources.shares(self._sources)
        return (total * self.args.world_size).nan_to_num().to(torch.get_default_dtype())

    def _smaller(self, step: Step, error: torch.OutOfMemoryError) -> Step:
        reason, number = str(error).splitlines()[0], self.state.global_step + 1
        half = self._learner.halved(step) if ranks.world() == 1 else None
        if half is None:
            tokens = self._learner.micro_batch_tokens(step)
            raise SetupError(
                f"Step {number}: the device's memory is full with micro-batches of {tokens} tokens. Set "
                f"training.micro_batch_tokens: {max(tokens // 2, 1)}, set training.gradient_checkpointing: true, or train an "
                f"adapter. The last checkpoint is whole; the same command resumes from it. ({reason})"
            ) from error
        tell(
            "device-memory",
            f"Step {number} did not fit into the device's memory: it is done again, in micro-batches of "
            f"{self._learner.micro_batch_tokens(half)} tokens from here on.",
            number,
        )
        return half

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As a float. What the step's numbers are is read here, all together: the one time that the device is waited for."""
        found: Any = super()._get_grad_norm(model, grad_norm)
        found = torch.as_tensor(found.full_tensor() if hasattr(found, "full_tensor") else found, device=self.args.device)
        shares, sound, sampled = self._unread
        with ranks.waiting(f"the numbers of step {self.state.global_step + 1}"):
            metrics, (norm, all_sound) = shares.total_with(self.accelerator, found, sound)
        self._record.update({name: v for name, v in gap_metrics(metrics, sampled).items() if math.isfinite(v)})
        if "rollout/length" in self._record:  # these weights have sampled what they train on
            check_gap(metrics, self._gap_bound, self.state.global_step + 1)
        left_out = not math.isfinite(norm)
        if not self.is_deepspeed_enabled:  # which leaves such a step out itself
            vars(self.optimizer)["_is_overflow"] = left_out  # what accelerate asks before the schedule goes on
            if left_out:
                model.zero_grad(set_to_none=True)  # an optimizer passes over parameters that have no gradient
        self.run_state.nonfinite.finish(norm, sound=bool(all_sound))
        self._record["train/left_out"] = float(left_out)
        return 0.0 if left_out else norm

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, learning_rate: float | None = None, **options: Any
    ) -> None:
        """Records the step, whatever logging_steps says, then lets the parent log, evaluate and save."""
        self._take_weights_of("eval")
        if self._record and self.state.global_step != self._recorded:
            now, self._recorded = time.monotonic(), self.state.global_step
            self.run_state.follow(self.model, self.state.global_step)
            self._record |= {"grad_norm": grad_norm, "learning_rate": float(learning_rate or 0.0)}
            self._record["train/tokens_per_second"] = self._record["train/tokens"] / max(now - self._clock, 1e-9)
            self._record["step/seconds"] = now - self._step_began
            for listener in self.listeners:
                listener.on_step(self.state.global_step, self._record)
            if self._spent() >= 1:
                self.control.should_training_stop = True
            self._end_if_over()
        self.run_state.evaluation_due = self.control.should_evaluate
        with self._saving_when_interrupted():
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, learning_rate=learning_rate, **options)
        self._record = {}
        self._end_if_interrupted()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To the trackers: what the parent says of a step, and all that the step recorded.

        transformers writes `eval_x` as `eval/x` and any other name as `train/<name>`.
        """
        recorded = {name.removeprefix("train/"): value for name, value in self._record.items()}
        super().log({**recorded, **logs} if "grad_norm" in logs else logs, start_time)

    def evaluate(self, eval_dataset: Any = None, *_: Any, **__: Any) -> dict[str, float]:  # type: ignore[override]
        """The algorithm's loss and metrics on every evaluation set, and sampled answers. Nothing is trained.

        Raises:
            SetupError: it is asked for another set than those that the trainer was made with.
        """
        if eval_dataset is not None:
            raise SetupError("evaluate: the sets are those of eval_dataset= of PostTrainer, several by name.")
        with self.run_state.updates.shown(self.model):  # type: ignore[arg-type]
            return self._measured()

    def _measured(self) -> dict[str, float]:
        found = {name: self._evaluated(data) for name, data in self._eval_examples.items()}
        metrics = {f"eval/{name}/{key}": value for name, of in found.items() for key, value in of.items()}
        if (sample := self._watching.sample_evaluation) is not None:
            with self.accelerator.autocast():
                metrics.update(sample(self.state.global_step))
        with self._signals_deferred():  # it is told as a whole, or made again
            self.run_state.evaluation_due, self.evaluated_at = False, self.state.global_step
            for listener in self.listeners:
                listener.on_evaluation(self.state.global_step, metrics)
            self.log({name.replace("eval/", "eval_", 1): value for name, value in metrics.items()})
            metrics = for_callbacks(metrics, self.args.metric_for_best_model)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            self._end_if_over()
        return metrics

    def predict(self, *_: Any, **__: Any) -> Any:
        """Raises SetupError: there are no predictions."""
        raise SetupError("predict: a trainer here has no predictions: take posttrain eval, or an engine's generate.")

    @torch.no_grad()
    def _evaluated(self, data: list[Example]) -> dict[str, float]:
        self._learner.keep_reference(data)
        collection = self._learner.open(self.model, collect_demonstrations(data, progress=1.0), follow=False)  # type: ignore[arg-type]
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
