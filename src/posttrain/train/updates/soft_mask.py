"""Heads and neurons change the less, the more they matter to rows that are to be kept: Continual Pre-training of Language
Models (soft-masked DAS, arXiv:2302.03241; importances as in github.com/UIC-Liu-Lab/ContinualLM).

With m a gate of ones on a
unit (what an attention head gives to the output projection, or a neuron of the MLP to the last one), over the rows:

    z = the mean of ∂(negative log-likelihood) / ∂m, standardised over the layer's units of a kind;   I = |tanh z|

and the unit's weights (rows of q, k, v or of gate and up; columns of o or down) change by (1 - strength · I) of what they
would. The paper scales gradients, which is the same by plain gradient descent; here the step's change is scaled, since an
optimizer that divides by the gradient's own size, as Adam, would take a factor that stays out again. Ours: keys and values
that several heads share go by the most important of them; the paper's general knowledge, by the KL of two dropout passes, and
its contrast of old and full knowledge are not here, and its output units neither. A layer of one unit has no z, and I is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from posttrain.errors import SetupError
from posttrain.settings.base import Share
from posttrain.train.updates._update import LearningConfig, Named, RowGradients, Update

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {"self_attn.o_proj": ("q_proj", "k_proj", "v_proj"), "mlp.down_proj": ("gate_proj", "up_proj")}
"""The matrix that reads a layer's units, by its columns, and those whose rows make them."""


class SoftMask(LearningConfig):
    """Heads and neurons change the less, the more they matter to rows that are to be kept."""

    of_whole_models = True
    copies = 1
    name: Literal["soft_mask"] = "soft_mask"
    strength: Share = 1.0
    """Of a unit of the greatest importance, the part of its change that is left out; 0: none."""

    def build(self, seed: int) -> Update:
        """Scales."""
        return _Scaled(self.strength)


class _Scaled(Update):
    def __init__(self, strength: float) -> None:
        self._strength, self._readers = strength, list[str]()
        self._importance, self._before = dict[str, "Tensor"](), dict[str, "Tensor"]()

    def start(self, named: Named) -> None:
        self._readers = [name for name in named if name.removesuffix(".weight").endswith(tuple(KINDS))]
        if not self._readers:
            raise SetupError(
                "training.update: soft_mask: no parameter self_attn.o_proj.weight or mlp.down_proj.weight of the model is "
                "trained, by which heads and neurons are told: it is for models that have them, and trains them."
            )
        if other := [name for name in named if ".experts." in name or _is_other(name, named, self._readers)]:
            raise SetupError(
                f"training.update: soft_mask: {other[0]} makes or reads heads or neurons too, and is none of "
                f"{', '.join([*KINDS, *KINDS['self_attn.o_proj'], *KINDS['mlp.down_proj']])}: it is for models of these."
            )
        for name in self._readers:
            width = named[name].shape[1]
            self._importance[name] = named[name].detach().new_zeros(1, width)
            for maker in _makers(name, named):
                rows = len(named[maker])
                if width % rows:
                    raise SetupError(
                        f"training.update: soft_mask: {maker} has {rows} rows, and {name} reads {width} columns: it is for "
                        "models whose heads give their values as they are to the output projection."
                    )
                self._importance[maker] = named[maker].detach().new_zeros(rows, *(1,) * (named[maker].dim() - 1))

    def learn(self, named: Named, rows: RowGradients) -> None:
        readers = {name: named[name] for name in self._readers}
        totals = {name: own.detach().new_zeros(own.shape[1]) for name, own in readers.items()}
        for found in rows.of(readers):
            for name, gradient in found.items():
                totals[name] += (gradient * named[name].detach()).sum(0)  # of each column's gate
        heads = int(getattr(rows.model, "config").get_text_config().num_attention_heads)  # noqa: B009
        for name, total in totals.items():
            of_heads = name.removesuffix(".weight").endswith("o_proj")
            own = importances(rows.mean(total), units=heads if of_heads else len(total))
            self._importance[name].copy_(own[None])
            for maker in _makers(name, named):
                kept = self._importance[maker]
                kept.copy_(shared(own, len(kept), heads if of_heads else len(own)).view(kept.shape))

    def on_gradients(self, named: Named, step: int) -> None:
        self._before = {name: named[name].detach().clone() for name in self._importance}

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        for name, importance in self._importance.items():
            named[name].detach().lerp_(self._before[name], self._strength * importance)

    def state(self) -> dict[str, Tensor]:
        return self._importance

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, own in self._importance.items():
            own.copy_(state[name])


def importances(gates: Tensor, *, units: int) -> Tensor:
    """|tanh z| of a layer's units, each over the columns that it has, from the gradients of all columns' gates."""
    of_units = gates.view(units, -1).sum(1)
    if units == 1:
        return gates.new_zeros(gates.shape)
    z = (of_units - of_units.mean()) / of_units.std()
    return z.nan_to_num(0.0, 0.0, 0.0).tanh().abs().repeat_interleave(len(gates) // units)


def shared(importance: Tensor, rows: int, units: int) -> Tensor:
    """Of so many rows that make what so many units read: of each the largest of the units that share it."""
    if rows == len(importance):
        return importance
    width = len(importance) // units
    return importance.view(rows // width, -1, width).amax(1).flatten()


def _makers(reader: str, named: Named) -> list[str]:
    """The weights and biases whose rows make what the matrix reads, of those that are trained."""
    kind = next(kind for kind in KINDS if reader.removesuffix(".weight").endswith(kind))
    names = [f"{_inside(reader)}{maker}.{part}" for maker in KINDS[kind] for part in ("weight", "bias")]
    return [name for name in names if name in named]


def _inside(reader: str) -> str:
    """What the names of its attention, or of its MLP, begin with."""
    return reader.removesuffix(".weight").rpartition(".")[0] + "."


def _is_other(name: str, named: Named, readers: list[str]) -> bool:
    of = [reader for reader in readers if name.startswith(_inside(reader)) and named[name].dim() == 2]
    return any(name != reader and name not in _makers(reader, named) for reader in of)
