"""What a run goes on from: transformers' checkpoints, whole or not at all, with what our loop remembers; and signals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from posttrain.distributed import ranks
from posttrain.distributed.sharding import is_sharded
from posttrain.distributed.signals import Interruption
from posttrain.errors import CheckpointError, Interrupted
from posttrain.model.adapters.rounded import write_note
from posttrain.model.layers.workspace import WORKSPACE
from posttrain.model.proofs.saved import checkpoint_fault
from posttrain.telling import hearing
from posttrain.train.checkpoint import folders as checkpoints
from posttrain.train.checkpoint import shards
from posttrain.train.checkpoint.run_state import RunState
from posttrain.train.optimizers._optimized import Optimized
from posttrain.train.watch.records import RunFiles


class Checkpointed(Optimized):
    """The part of `PostTrainer` that saves, goes on, and ends when it is asked to.

    Its constructor sets what is declared here.
    """

    mode: str = "one process"
    """How the model is spread over the ranks, once it is."""
    evaluated_at: int | None = None
    """The step of the last evaluation in this process."""
    run_state: RunState
    run_files: RunFiles
    _interruption: Interruption | None
    _facts: Mapping[str, Any]
    _keep: int | None

    def train(self, *arguments: Any, **options: Any) -> Any:
        """See transformers. A signal that `interruption` listens to ends it between two steps, with a checkpoint.

        Raises:
            Interrupted: a signal came.
        """
        try:
            with self._signals_deferred(), hearing(self.run_files.warn if ranks.is_main() else None):
                done = super().train(*arguments, **options)
                self.run_state.updates.end(self.model)  # type: ignore[arg-type]
                return done
        finally:
            WORKSPACE.clear()
            self.run_state.updates.release(self.model)  # type: ignore[arg-type]

    def _signals_deferred(self) -> contextlib.AbstractContextManager[None]:
        """Signals are remembered while it is entered."""
        return contextlib.nullcontext() if self._interruption is None else self._interruption.deferred()

    @contextlib.contextmanager
    def _let_through(self) -> Iterator[None]:
        """A signal ends at once what is entered; with several ranks it waits, for the others would wait for this one."""
        if self._interruption is None or ranks.world() > 1:
            yield
            return
        with self._interruption.let_through():
            yield

    @contextlib.contextmanager
    def _saving_when_interrupted(self) -> Iterator[None]:
        """The same, and the run ends with a checkpoint of what was before."""
        mark = None if self._interruption is None else self.run_state.mark()
        try:
            with self._let_through():
                yield
        except Interrupted:
            if mark is not None:
                self.run_state.come_back(mark)
            self._end_with_checkpoint()

    def _end_if_interrupted(self) -> None:
        """Between two steps, all ranks together."""
        if self._interruption is not None and ranks.any_of(self._interruption.by is not None, "whether a signal came"):
            self._end_with_checkpoint()

    def _end_with_checkpoint(self) -> None:
        step, by = self.state.global_step, (self._interruption and self._interruption.by) or "a signal to another process"
        if not step:
            raise Interrupted(f"{by}: ended before the first step was done. The same command begins again.", together=True)
        if self.run_state.saved != step:
            self._save_checkpoint(self.model, None)
        raise Interrupted(f"{by}: ended with checkpoint-{step}. The same command goes on from it.", together=True)

    def _get_output_dir(self, trial: Any) -> str:
        return str(checkpoints.staging_of(Path(str(self.args.output_dir))))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The parent's checkpoint, and what the loop remembers beside it."""
        step = self.state.global_step

        def fill(staging: Path) -> None:
            if self.mode == "fsdp2":
                self._save_shards(staging)
            else:
                super(Checkpointed, self)._save_checkpoint(model, trial)
                if ranks.is_main():
                    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle, with tokens in it; nobody reads it
                    write_note(self.model, staging)
                self._prove(staging)
            self.run_state.save(staging, step)

        with self._signals_deferred():
            checkpoints.write(Path(str(self.args.output_dir)), step, fill, self._facts, keep=self._keep)
        self.run_state.saved = step

    def _prove(self, staging: Path) -> None:
        if self.is_deepspeed_enabled or not ranks.is_main():
            return
        if (fault := checkpoint_fault(staging, self.model)) is not None:
            raise CheckpointError(
                f"The model in checkpoint-{self.state.global_step} would not be the one that is trained: {fault}. What was "
                f"written lies in {staging}; the checkpoints before it are whole."
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See transformers. In a checkpoint a model that ranks share is among the states of the ranks, and not once more."""
        model: Any = self.model
        if not (_internal_call and is_sharded(model)):
            super().save_model(output_dir, _internal_call)

    def _save_shards(self, staging: Path) -> None:
        shards.save(self.model, self.optimizer, staging)
        self._save_rng_state(str(staging))
        scheduler: Any = self.lr_scheduler
        if ranks.is_main():
            torch.save(scheduler.state_dict(), staging / "scheduler.pt")
            self.state.save_to_json(str(staging / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if shards.are_in(Path(resume_from_checkpoint)):
            shards.load_model(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not shards.are_in(Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        shards.load_optimizer(self.optimizer, Path(checkpoint))
        scheduler: Any = self.lr_scheduler
        scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The parent's generators, the last that it loads, and what the loop remembered."""
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        self.run_state.load(Path(checkpoint), self.state.global_step)
        self._take_rate_of_this_schedule()
        if self.run_state.evaluation_due:
            if ranks.is_main():
                self.run_files.evaluate_again(self.state.global_step)
            with self._saving_when_interrupted():
                self.evaluate()
