"""On-policy self-distillation (SDFT, arXiv:2601.19897): rollouts, and the model itself for a teacher, shown a demonstration.

    distributions: no term; penalty JSD_beta(q || pi) = beta KL(q || m) + (1 - beta) KL(pi || m),  m = beta q + (1 - beta) pi
    tokens:        mask 1, pi_ref = pi_old, A_t = log q(y_t) - log pi_old(y_t), within ±kl_max;  N = tokens

q(y_t) = pi_start(y_t | c(x), y_<t), where c(x) is `teacher_template`, the prompt with what only the teacher is told. What
the teacher is, `model.reference` says: the start model; live with `{refresh: 1}`, a copy of the policy at each step; or a
moving average of the policy with `{refresh: 1, mix: 0.05}`. With nothing more in the template the teacher is the student at
the start, and nothing is learnt. `tokens` is `opd` with that teacher, and `distributions` is `gkd`.

The abstract was read, and the loss in TRL's code, against which it is checked. There the whole distribution is by default cut
to the student's 100 likeliest tokens, the mean is over answers of means over tokens, and rollouts are used several times with
a capped ratio; here it is whole, the mean is over tokens, and each collection is used once. The bound kl_max is `opd`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from posttrain.algorithms.options import OnSamples
from posttrain.settings.base import Positive, Share, Template

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class SDFT(OnSamples):
    """On-policy self-distillation: the model learns what it says once it is shown more than the prompt."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["sdft"] = "sdft"
    updates: Literal[1] = 1
    """Optimizer steps for each collection."""
    teacher_template: Template = "{prompt}\n\n{demonstration}"
    """What the teacher is asked in place of the prompt; its fields are columns."""
    compare: Literal["distributions", "tokens"] = "distributions"
    """With the teacher: whole distributions, or log-probs of what was sampled."""
    beta: Share = 0.5
    """Of distributions, between KL(teacher || pi), at 0, and KL(pi || teacher), at 1."""
    kl_max: Positive = 10.0
    """Of tokens, the bound of |log q - log pi|, in nats."""

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        return {"beta": "compare: distributions"} if self.compare == "tokens" else {"kl_max": "compare: tokens"}

    @property
    def learns_from_rewards(self) -> bool:
        """See `AlgorithmConfig`."""
        return False

    def build(self) -> Algorithm:
        """A penalty by itself, or the row of `opd`."""
        from posttrain.algorithms.from_teachers._parts import divergence, towards_teacher
        from posttrain.estimator import Algorithm, Needs

        sampled = self.compare == "tokens"
        learnt: Any = {"terms": (towards_teacher(kl_max=self.kl_max),)}
        return Algorithm(
            name=self.name,
            paper="arXiv:2601.19897",
            needs=Needs(
                scope="token",
                rollouts=self.rollouts,
                teacher="logp" if sampled else "full",
                own_teacher=True,
                teacher_template=self.teacher_template,
            ),
            **(learnt if sampled else {"terms": (), "penalties": (divergence(self.beta),)}),
        )
