"""What a run goes on from: transformers' checkpoints, whole or not at all, with what our loop remembers; and signals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from posttrain.distributed import ranks
from posttrain.distributed.sharding import is_sharded
from posttrain.distributed.signals import Interruption
from posttrain.errors import CheckpointError, Interrupted
from posttrain.estimator.algorithm import Algorithm
from posttrain.train.checkpoint import collection_file as collection_files
from posttrain.train.checkpoint import folders as checkpoints
from posttrain.train.checkpoint import shards
from posttrain.train.collect.collection import Collection, Collector
from posttrain.train.watch.nonfinite import NonFinite
from posttrain.train.watch.records import RunFiles

COLLECTION = "collection.safetensors"


class Checkpointed(Trainer):
    """The part of `PostTrainer` that saves, goes on, and ends when it is asked to.

    Its constructor sets what is declared here.
    """

    mode: str = "one process"
    """How the model is spread over the ranks, once it is."""
    _algorithm: Algorithm
    _collector: Collector
    _nonfinite: NonFinite
    run_files: RunFiles
    _interruption: Interruption | None
    _facts: Mapping[str, Any]
    _keep: int | None
    _opened: Collection | None = None
    _saved: int | None = None
    _evaluation_due = False

    def train(self, *arguments: Any, **options: Any) -> Any:
        """See transformers. A signal that `interruption` listens to ends it between two steps, with a checkpoint.

        Raises:
            Interrupted: a signal came.
        """
        with self._held():
            return super().train(*arguments, **options)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        """Signals are remembered while it is entered."""
        return contextlib.nullcontext() if self._interruption is None else self._interruption.held()

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
        before = None if self._interruption is None else (self._collector.state(), torch.get_rng_state())
        try:
            with self._let_through():
                yield
        except Interrupted:
            if before is not None:
                self._collector.restore(before[0])
                torch.set_rng_state(before[1])
            self._end_with_checkpoint()

    def _end_if_interrupted(self) -> None:
        """Between two steps, all ranks together."""
        if self._interruption is not None and ranks.any_of(self._interruption.by is not None, "whether a signal came"):
            self._end_with_checkpoint()

    def _end_with_checkpoint(self) -> None:
        step, by = self.state.global_step, (self._interruption and self._interruption.by) or "a signal to another process"
        if not step:
            raise Interrupted(f"{by}: ended before the first step was done. The same command begins again.")
        if self._saved != step:
            self._save_checkpoint(self.model, None)
        raise Interrupted(f"{by}: ended with checkpoint-{step}. The same command goes on from it.")

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
                if ranks.leads():
                    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle, with tokens in it; nobody reads it
            if step % self._algorithm.needs.updates and self._opened is not None and ranks.leads():
                collection_files.save(self._opened, staging / COLLECTION)
            remembered = {
                "collector": self._collector.state(),
                "nonfinite": self._nonfinite.in_a_row,
                "evaluation_due": self._evaluation_due,
            }
            (staging / f"loop_{ranks.rank()}.json").write_text(json.dumps(remembered))

        with self._held():
            checkpoints.write(Path(str(self.args.output_dir)), step, fill, self._facts, keep=self._keep)
        self._saved = step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See transformers. In a checkpoint a model that ranks share is among the states of the ranks, and not once more."""
        model: Any = self.model
        if not (_internal_call and is_sharded(model)):
            super().save_model(output_dir, _internal_call)

    def _save_shards(self, staging: Path) -> None:
        shards.save(self.model, self.optimizer, staging)
        self._save_rng_state(str(staging))
        scheduler: Any = self.lr_scheduler
        if ranks.leads():
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
        path = Path(checkpoint) / f"loop_{ranks.rank()}.json"
        if not path.is_file():
            raise CheckpointError(f"{checkpoint} is none of this trainer's, with {ranks.world()} processes: no {path.name}.")
        remembered = json.loads(path.read_text())
        self._collector.restore(remembered["collector"])
        self._nonfinite.in_a_row = remembered["nonfinite"]
        if (opened := Path(checkpoint) / COLLECTION).is_file():
            self._opened = collection_files.load(opened)
        self._saved = self.state.global_step
        self._evaluation_due = remembered["evaluation_due"]
        if self._evaluation_due:
            if ranks.leads():
                self.run_files.evaluate_again(self.state.global_step)
            with self._saving_when_interrupted():
                self.evaluate()
