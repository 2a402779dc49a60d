"""A teacher: another model over the same vocabulary, loaded and looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from posttrain.errors import SetupError
from posttrain.estimator.divergence import Divergence
from posttrain.model.frozen.frozen import Frozen
from posttrain.model.head import Head, ReferenceStates
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.pretrained.model import pretrained, with_adapter
from posttrain.model.proofs.trials import usable_head
from posttrain.model.scoring import Scorer, output_head
from posttrain.settings.model import ModelConfig, TeacherConfig
from posttrain.settings.training import HeadPath


class Teacher(Frozen):
    """Scores rows under a model that was trained elsewhere.

    Args:
        model: not the policy, nor a part of it; it takes no gradient from here on.
        head: how its tokens are scored.
        rows: of the policy's output layer. Ids beyond them are no tokens, and have no share in a whole distribution.
    """

    def __init__(self, model: nn.Module, *, head: HeadPath, rows: int) -> None:
        super().__init__(model.requires_grad_(False).eval())
        self._head, self._rows = head, rows

    def logp(self, inputs: ModelInputs, loss_mask: Bool[Tensor, "B T"], scorer: Scorer) -> Float[Tensor, "B T"]:
        """See `Frozen`, by its own head."""
        return super().logp(inputs, loss_mask, replace(scorer, head=self._head))

    def states(self, inputs: ModelInputs, by: Divergence) -> ReferenceStates:
        """See `Frozen`."""
        made = super().states(inputs, by)
        weight, bias = made.head.weight[: self._rows], made.head.bias
        return replace(made, head=Head(weight, None if bias is None else bias[: self._rows]))


def teacher_of(name: str, model: Any, policy: Any, *, vocabulary: int, head: HeadPath, full: bool) -> Teacher:
    """A teacher of a policy, neither of which is spread over ranks yet.

    Args:
        name: for messages.
        model: the teacher's.
        policy: the student's.
        vocabulary: token ids are below it.
        head: how tokens are to be scored.
        full: whole distributions are compared.

    Raises:
        SetupError: they are one model, or do not have the same vocabulary; or whole distributions cannot be compared.
    """
    who, own = f"The teacher {name}", {id(parameter) for parameter in policy.parameters()}
    if any(id(parameter) in own for parameter in model.parameters()):
        raise SetupError(f"{who} has parameters of the model that is trained, and would be trained with it: pass a copy.")
    rows, there = (output_head(one).weight.shape[0] for one in (policy, model))
    if (embedded := model.get_input_embeddings().num_embeddings) < vocabulary or (full and there < rows):
        least = rows if full else vocabulary
        raise SetupError(
            f"{who} has {min(embedded, there)} ids, and {least} are needed: its vocabulary is another than the student's."
        )
    usable = usable_head(model, head, vocabulary)
    if full and usable == "whole":
        raise SetupError(f"{who} is compared by whole distributions: an output layer that is a matrix is needed.")
    return Teacher(model, head=usable, rows=rows)


def load_teacher(name: str, config: TeacherConfig, tokenizer: Any) -> Any:
    """The model of a teacher whose vocabulary is the student's.

    Raises:
        SetupError: it cannot be loaded, or reads other tokens than the student's `tokenizer` writes.
    """
    assert config.name is not None
    described = ModelConfig(name=config.name, dtype=config.dtype, revision=config.revision)
    try:
        model, theirs = pretrained(described, masters=False)
        if config.adapter is not None:
            model = with_adapter(model, Path(config.adapter), config.name)
    except SetupError as error:
        raise SetupError(f"model.teachers.{name}: {str(error).removeprefix('model.name: ')}") from error
    known, wanted = theirs.get_vocab(), tokenizer.get_vocab()
    others = sorted((i, token) for token, i in wanted.items() if known.get(token) != i)
    if others:
        raise SetupError(
            f"model.teachers.{name}: {config.name} has another vocabulary than the student: {len(others):,} of its "
            f"{len(wanted):,} tokens have other ids there or none, {others[0][1]!r} first. A teacher scores the student's "
            "token ids: take one with the student's tokenizer."
        )
    return model
