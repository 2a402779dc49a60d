"""What an algorithm compares the policy with, token by token or over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Batch
from posttrain.model.frozen.frozen import Frozen
from posttrain.model.frozen.reference import Reference
from posttrain.model.head import ReferenceStates
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.scoring import Scorer

Score = Callable[[ModelInputs, Batch], Float[Tensor, "B T"]]


class Compared:
    """The frozen models of an algorithm, and what its needs ask of them.

    `scores` makes the fields of a batch that are log-probs under one of them, by their names.
    """

    def __init__(self, algorithm: Algorithm, reference: Reference | None, teacher: Frozen | None, scorer: Scorer) -> None:
        needs, self._by, self.scores = algorithm.needs, algorithm.divergence, dict[str, Score]()
        if reference is not None and needs.ref_logp:
            self.scores["ref_logp"] = partial(_logp, reference, scorer)
        teacher = reference if needs.own_teacher else teacher
        if teacher is not None and needs.teacher == "logp":
            self.scores["teacher_logp"] = partial(_taught_logp, teacher, scorer)
        stays = reference is not None and not reference.moves and not needs.rollouts
        self.kept = self.scores.get("ref_logp") if stays else None
        """What makes the reference's log-probs of rows that are read again, where those are the same then."""
        self._whole = reference if needs.full_kl else teacher if needs.teacher == "full" else None
        self._of_start = needs.full_kl

    def completed(self, inputs: ModelInputs, batch: Batch) -> Batch:
        """The batch with those of the log-probs that it has not."""
        lacking = {name: score(inputs, batch) for name, score in self.scores.items() if getattr(batch, name) is None}
        return batch.replace(**lacking) if lacking else batch

    def states(self, inputs: ModelInputs) -> ReferenceStates | None:
        """What whole distributions are compared with, where they are."""
        if self._whole is None:
            return None
        return self._whole.states(inputs if self._of_start else inputs.teacher or inputs, self._by)


def _logp(model: Frozen, scorer: Scorer, inputs: ModelInputs, batch: Batch) -> Float[Tensor, "B T"]:
    return model.logp(inputs, batch.loss_mask, scorer)


def _taught_logp(model: Frozen, scorer: Scorer, inputs: ModelInputs, batch: Batch) -> Float[Tensor, "B T"]:
    return model.logp(inputs.teacher or inputs, batch.loss_mask, scorer)
