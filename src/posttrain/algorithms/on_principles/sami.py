"""Self-supervised alignment with mutual information (Fränken et al. 2024, arXiv:2404.14313): SAMI.

K principles c_i, and of one question a completion y_j written under each: M_ij = the mean over tokens of log pi(y_j | x, c_i)
L = mean over questions of 1/2 [mean over i of -log softmax_j(M)_ii + mean over j of -log softmax_i(M)_jj]
    mask 1, pi_ref = pi_theta (detached), A_ij = ([i = j] - (softmax_j(M)_ij + softmax_i(M)_ij)/2) / (K |y_j|), N = questions
log K - L is a lower bound of the information between principles and completions. As in the authors' code, which has K = 2
and no KL to the start model by default; there the token that ends a completion is not in the mean, and here it is. That code
samples completions from the start model once, or once for each round: here they are data.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.options import AlgorithmConfig

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class SAMI(AlgorithmConfig):
    """Principles without labels: a completion is likeliest under the principle that it was written under, and the other way
    round.
    """

    trains_on = "principles"

    name: Literal["sami"] = "sami"
    principles: Annotated[int, Field(ge=2)] = 2
    """K: prompts of a row, each with a principle of its own, and completions."""

    def build(self) -> Algorithm:
        """Two classifications of each unit of K² rows: which completion a principle has, and which principle a completion."""
        import torch

        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import average, denominator, preference

        number = self.principles

        def scores(completions: tuple[Completions, ...]) -> Tensor:
            return torch.cat([one.mean for one in completions], -1).view(-1, number, number)

        def contrastive(*completions: Completions) -> Tensor:
            both = [scores(completions).log_softmax(over).diagonal(dim1=1, dim2=2) for over in (1, 2)]
            return -torch.cat(both, -1).mean(-1, keepdim=True)

        def told_apart(*completions: Completions) -> Tensor:
            logits = scores(completions)
            itself = torch.eye(number, dtype=torch.bool, device=logits.device)
            own = logits.diagonal(dim1=1, dim2=2)
            others = logits.masked_fill(itself, float("-inf"))
            gap = torch.cat([own - others.amax(over) for over in (1, 2)], -1)
            return ((gap > 0) + 0.5 * (gap == 0)).to(logits.dtype).mean(-1, keepdim=True)

        term = Term(
            name=self.name,
            estimator=Estimator(denominator=denominator.current, advantage=partial(preference.pull, loss=contrastive)),
            average=average.units(number**2),
            metrics=(
                Metric(f"objective/{self.name}", partial(preference.objective, loss=contrastive)),
                Metric("principles/accuracy", partial(preference.objective, loss=told_apart)),
            ),
        )
        needs = Needs(scope="sequence", crossed=number)
        return Algorithm(name=self.name, paper="arXiv:2404.14313", needs=needs, terms=(term,))
