"""Self-distillation policy optimization (SDPO, arXiv:2601.20802): the model, shown what its group got right, teaches itself.

    (1 - w) · GRPO: mask of PPO, pi_ref = pi_old, A = (R - mean)/(std + e) of the group
        w · tokens: mask 1, ratio min(r, cap), A_t = log q(y_t) - log pi(y_t), within ±kl_max, of taught rows alone
 w · distributions: penalty JSD_beta(q || pi), of taught rows alone
 each term's N = its tokens, s = 1; or `average: sequence_mean`: N = its rows, s = 1/|y|;  kl_coef · k3 beside them

w is `distillation_weight`. q(y_t) = pi_start(y_t | c(x, y'), y_<t), where c is `teacher_template` and y', its {right}, is the
first other rollout of the question that is right and says something else. Where there is none the row is not taught: no
teacher has a part in it (`rollout/taught` is the share of those that are). What the teacher is, `model.reference` says, as
for `sdft`: the start model; or with `{refresh: 1, mix: 0.05}`, as TRL has it, a moving average of the policy. Other names in
the template are columns: feedback that a row brings along is one; what a reward says of an answer is not told. Where no
{right} is named it is `sdft`; at w = 0 it would be GRPO.

The abstract was read, the loss and the choice of y' in TRL's code, against which both are checked, and the loss in a copy of
the authors'. Both have the capped ratio on distributions, too, which are compared here as they are. The authors average over
the tokens of taught rows, as here; TRL over all rows, taught or not, of means over tokens. TRL asks for a reward of at least
1, and shows a right answer to one in the same words; here the verdict counts, and no answer is shown its own words, which is
ours. The bound kl_max is `opd`'s.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from posttrain.algorithms.on_rollouts._groups import Clip
from posttrain.algorithms.options import Grouped
from posttrain.settings.base import RIGHT, Positive, Share, Template

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm, Term
    from posttrain.estimator.parts.average import Average


class SDPO(Clip, Grouped):
    """Self-distillation policy optimization: the model learns what it says once it is shown a right answer of its own."""

    reads_verdict = True
    beside_rollouts: ClassVar[bool] = True

    name: Literal["sdpo"] = "sdpo"
    teacher_template: Template = "{prompt}\n\nCorrect solution:\n\n{right}\n\nCorrectly solve the original question."
    """What the teacher is asked in place of the prompt: {right} is another right answer, and other fields are columns."""
    distillation_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of what the teacher says; the policy gradient has the rest."""
    compare: Literal["tokens", "distributions"] = "tokens"
    """With the teacher: log-probs of what was sampled, or whole distributions."""
    ratio_cap: Annotated[float, Field(gt=1)] = 2.0
    """Of tokens, the largest pi / pi_old by which one is weighed; it acts only with several updates a collection."""
    kl_max: Positive = 10.0
    """Of tokens, the bound of |log q - log pi|, in nats."""
    beta: Share = 0.5
    """Of distributions, between KL(teacher || pi), at 0, and KL(pi || teacher), at 1."""
    average: Literal["token", "sequence_mean"] = "token"
    """Over tokens, or over answers of means over their tokens."""

    @field_validator("teacher_template")
    @classmethod
    def _shows_a_right_answer(cls, template: str) -> str:
        if f"{{{RIGHT}}}" not in template:
            raise ValueError(f"it has no {{{RIGHT}}}, which another right answer takes the place of: without it, take sdft")
        return template

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        tokens, weight = "compare: tokens", "distillation_weight below 1"
        unread = {"beta": "compare: distributions"} if self.compare == "tokens" else {"kl_max": tokens, "ratio_cap": tokens}
        if self.distillation_weight < 1:
            return unread
        corrects = {} if self.compare == "tokens" else {"correction": f"{tokens}, or {weight},"}
        return {**unread, **corrects, "clip_low": weight, "clip_high": weight, "std_eps": weight}

    @property
    def reads_rewards(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `AlgorithmConfig`."""
        return self.distillation_weight < 1

    def build(self) -> Algorithm:
        """GRPO's row, if it has a share, and a term or a penalty over taught rows."""
        from posttrain.algorithms.from_teachers._parts import divergence
        from posttrain.algorithms.terms import entropy_penalties, group_credit, kl_terms, needs, policy_term
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, select

        per, w = getattr(average, self.average), self.distillation_weight
        sampled, rewarded = self.compare == "tokens", w < 1
        policy = policy_term(self, per, mask=self.clip(), coef=1 - w, metrics=self.native())
        whole = divergence(self.beta, coef=w, per=per, select=select.taught)
        learnt: Any = {"credit": group_credit(True, self.std_eps)} if rewarded else {}
        return Algorithm(
            name=self.name,
            paper="arXiv:2601.20802",
            needs=needs(
                self,
                teacher="logp" if sampled else "full",
                teacher_template=self.teacher_template,
                own_teacher=True,
                shows_right=True,
            ),
            terms=(
                *([policy] if rewarded else []),
                *([self._distillation(per)] if sampled else []),
                *kl_terms(self.kl_coef, "k3", per),
            ),
            penalties=(*([] if sampled else [whole]), *entropy_penalties(self.entropy_coef)),
            **learnt,
        )

    def _distillation(self, per: Average) -> Term:
        from posttrain.algorithms.terms import correction_part
        from posttrain.estimator import Estimator, Metric, Term
        from posttrain.estimator.parts import advantage, denominator, metric, select

        estimator = Estimator(
            denominator=partial(denominator.old_capped, high=self.ratio_cap - 1),
            advantage=partial(advantage.nearer_to_teacher, bound=self.kl_max),
            correction=correction_part(self.correction),
        )
        return Term(
            name="distillation",
            estimator=estimator,
            average=per,
            select=select.taught,
            coef=self.distillation_weight,
            metrics=(Metric("kl/teacher", metric.kl_to_teacher),),
        )
