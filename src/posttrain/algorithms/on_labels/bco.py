"""Binary classifier optimization (Jung et al. 2024, arXiv:2404.04656).

u = sum_t(logp - ref) of a completion, l = 1 where it is wanted, -1 where it is not
delta = half the sum of the running means of beta u over steps, of completions that are wanted and of those that are not
L = - mean over rows of log sigmoid(l (beta u - delta))
    mask 1, pi_ref = pi_theta (detached), A = l beta sigmoid(-l (beta u - delta)), N = rows
The formula is recalled. delta, the reward's shift, has no gradient: it is made of the whole step under the policy at its
beginning, over all ranks, before its first micro-batch, which takes one forward more; both means begin at the start model's
own, 0, and one for which a step has no row stays: ours, as is that each has a mean of its own where other code has one of
each micro-batch. The densities of prompts that the paper weighs by are left out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.options import OnLabels
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class BCO(OnLabels):
    """A classifier of what is wanted, whose logit is the policy's reward: each completion alone, against a running mean."""

    name: Literal["bco"] = "bco"
    beta: Positive = 0.1
    """Scale of the log-ratio, which makes it a reward."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """What a step leaves of the running means; 0: they are the step's own."""

    def build(self) -> Algorithm:
        """The logistic loss of a completion's reward, shifted."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_labels._labels import labels
        from posttrain.estimator.needs import RunningMean

        def classified(one: Completions, *, beta: float) -> Tensor:
            return -logsigmoid(beta * one.label * (one.gain - one.view.require("anchor")))

        return labels(self.name, "arXiv:2404.04656", partial(classified, beta=self.beta), anchor=RunningMean(self.decay))
