"""What an algorithm asks of those who feed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ASKED_BY = {
    "ref_logp": "ref_logp=True",
    "teacher_logp": 'teacher="logp"',
    "old_logp": "old_logp=True",
    "entropy": 'collected_entropy="rows"',
    "collision": "collision=True",
    "chosen": "preference=True",
    "correct": "verdict=True",
    "reward": "rollouts=…",
    "behavior_logp": "rollouts=…",
    "weight": 'weight="weight"',
    "anchor": "anchor=…",
    "baseline": 'baseline="greedy" or "value"',
    "turn": "turns=True",
    "token_reward": "turns=True",
}
"""How `Needs` asks for a field of the batch."""


SIDES = ("chosen", "rejected", "reference")
"""Columns of the completions of a unit of preference data, in their order."""

CROSSED = ("prompts", "completions")
"""Columns of a unit of completions that each stand under each prompt; lists."""


@dataclass(frozen=True, slots=True)
class PairRule:
    """Which completions of a question are preference pairs, and how many of them, at most.

    best_worst: of the highest and the lowest reward. all: every one and every one of a lower reward. demonstration: the
    question's demonstration and completions. fixed_rejected: completions and what stands in the question's column `rejected`.
    """

    rule: Literal["best_worst", "all", "demonstration", "fixed_rejected"] = "best_worst"
    at_most: int | None = None

    @property
    def given(self) -> bool:
        """Whether one side of each pair comes with the question."""
        return self.rule in ("demonstration", "fixed_rejected")


@dataclass(frozen=True, slots=True)
class RunningMean:
    """A mean over steps: m <- decay · m + (1 - decay) · the step's own."""

    decay: float


@dataclass(frozen=True, slots=True)
class Buffer:
    """Demonstrations of questions of which no rollout was right: they wait until there are `size`, and that many are trained
    on.

    order: the newest first, or the oldest. step: the update is an optimizer step of its own, after those of the collection
    that fills the buffer; or within the last of these (same).
    """

    size: int = 128
    order: Literal["newest", "oldest"] = "newest"
    step: Literal["own", "same"] = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an algorithm needs of the collector and the trainer, which read nothing else of it.

    demonstration: none; row (a demonstration is, or ends, its group); prefix (completions go on from its head); separate (a
    data set of its own, of which each step has `demonstrations` rows).
    preference: rows are pairs of a chosen and a rejected completion.
    crossed: rows are so many completions, each under each of as many prompts: the first prompt with all of them comes first.
    unit: rows that belong together, and that nothing takes apart; 2 where they are pairs, 3 where each pair has a third
    completion beside it, which is to be imitated; the square of `crossed`.
    pairs: how pairs are made of rollouts; None where they are data.
    weight: the column of demonstrations, as numbers of rows or of tokens, that becomes Batch.weight. forget is -1
    where a row is to be forgotten, and else 1; label is 1 where a row is wanted, and else -1.
    unwanted: demonstrations are what is not to be said: their likelihood is lowered.
    anchor: how Batch.anchor is made of a step; mismatched: max(0, the mean of log pi - log ref over each prompt with the
    completion of the row before).
    baseline: what a question's answers are compared with, which becomes Batch.baseline: greedy, the reward of its most
    probable answer, for which the planner asks beside the rollouts, at temperature 0; value, its column of that name.
    rollouts: completions sampled for each question. updates: optimizer steps for each collection.
    corrects: its credit weighs tokens by how likely they were to their sampler, beside what a term's correction does.
    measures_tokens: its credit is made of all tokens of a collection together, so that none may leave the loss afterwards.
    old_of_sampler: old_logp is behavior_logp on ROLLOUT tokens, and no forward of the trainer is made for it.
    full_kl, teacher: whole distributions are compared with the frozen start model's, or with a teacher's (full); or a
        teacher's log-probs of the tokens are needed (logp).
    own_teacher: the teacher is the start model, or what follows the policy from there.
    teacher_template: what the teacher is asked in place of the prompt, with fields that are columns of a row; where it is
        empty it reads what the student reads.
    shows_right: `right` in that template is another right rollout of the row's question; Batch.taught are rows with one.
    collected_entropy: the collecting policy's, of demonstrated prefixes or of whole rows.
    collision: the log of the sum of the squared probabilities at each token, of the policy as it is.
    verdict: which rollouts are right, beside their rewards.
    turns: the turns of episodes are paid one by one: Batch.turn and Batch.token_reward.
    memory: what the collector remembers over steps: none, window (of several updates), or a buffer, which takes
    demonstration="row" and verdict=True.
    resample: groups without signal are replaced, a bounded number of times.
    branches: groups without a right rollout are replaced by others of their question, which go on from its demonstration.
    """

    scope: Literal["token", "sequence"]
    demonstration: Literal["none", "row", "prefix", "separate"] = "none"
    demonstrations: int = 0
    preference: bool = False
    crossed: int = 0
    unit: int = 1
    pairs: PairRule | None = None
    weight: Literal["none", "weight", "reward", "advantage", "forget", "label"] = "none"
    unwanted: bool = False
    anchor: Literal["none", "mismatched"] | RunningMean = "none"
    baseline: Literal["none", "greedy", "value"] = "none"
    rollouts: int = 0
    updates: int = 1
    old_logp: bool = False
    old_of_sampler: bool = False
    corrects: bool = False
    measures_tokens: bool = False
    ref_logp: bool = False
    entropy: bool = False
    collision: bool = False
    full_kl: bool = False
    teacher: Literal["none", "logp", "full"] = "none"
    own_teacher: bool = False
    teacher_template: str = ""
    shows_right: bool = False
    collected_entropy: Literal["none", "prefix", "rows"] = "none"
    verdict: bool = False
    turns: bool = False
    memory: Literal["none", "window"] | Buffer = "none"
    resample: bool = False
    branches: bool = False

    def __post_init__(self) -> None:
        self._settle_unit()
        if self.full_kl and self.teacher == "full":
            raise ValueError('Needs: whole distributions are compared with one model: full_kl=True or teacher="full"')
        if (self.teacher_template or self.own_teacher) and self.teacher == "none":
            raise ValueError("Needs: teacher_template and own_teacher are of a teacher: teacher='logp' or 'full'")
        if self.shows_right and not (self.own_teacher and self.verdict and self.rollouts and self.teacher_template):
            raise ValueError(
                "Needs: shows_right tells an own_teacher, by its teacher_template, of rollouts with a verdict=True"
            )
        if self.branches and self.resample:
            raise ValueError("Needs: branches and resample both replace groups, and one of them can: say which")
        if self.branches and not (self.verdict and self.demonstration == "prefix"):
            raise ValueError('Needs: branches asks which rollouts are right (verdict=True) and goes on from "prefix"')
        if self.buffer is not None and not (self.rollouts and self.demonstration == "row" and self.verdict):
            raise ValueError('Needs: a buffer is of questions without a right rollout: demonstration="row", verdict=True')

    def _settle_unit(self) -> None:
        if self.crossed and (self.crossed < 2 or self.preference or self.rollouts):
            raise ValueError(f"Needs: crossed={self.crossed}: 2 prompts or more, of data, and without preference=True")
        if self.unit == 1 and (self.preference or self.crossed):
            object.__setattr__(self, "unit", self.crossed**2 or 2)
        whole = (2,) if self.pairs is not None else (2, len(SIDES)) if self.preference else (self.crossed**2 or 1,)
        if self.unit not in whole:
            raise ValueError(
                f"Needs: unit={self.unit}: a unit is a pair (2), or with preference=True of data a triple ({len(SIDES)}), or "
                "with crossed=K has K² rows; else a row (1)"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a unit is read from, where it is more than a demonstration."""
        return CROSSED if self.crossed else self.sides

    @property
    def sides(self) -> tuple[str, ...]:
        """The columns of a unit's completions, where it is one of preference data."""
        return SIDES[: self.unit] if self.preference else ()

    @property
    def compares_distributions(self) -> bool:
        """Whole distributions are compared with another model's."""
        return self.full_kl or self.teacher == "full"

    @property
    def reference(self) -> bool:
        """A frozen copy of the start model is needed."""
        return self.ref_logp or self.full_kl or self.own_teacher

    @property
    def given_teacher(self) -> bool:
        """A teacher is needed that is another model."""
        return self.teacher != "none" and not self.own_teacher

    @property
    def buffer(self) -> Buffer | None:
        """Of demonstrations that wait, where there is one."""
        return self.memory if isinstance(self.memory, Buffer) else None

    @property
    def adds_steps(self) -> bool:
        """There are optimizer steps beside those on rollouts, when a buffer is full."""
        return self.buffer is not None and self.buffer.step == "own"

    @property
    def older_policy(self) -> bool:
        """Later updates compare with the policy that has sampled; losses of pairs do not ask who has."""
        return self.updates > 1 and not self.preference

    @property
    def exact_logp(self) -> bool:
        """Log-probs are compared with others: dropout must be off."""
        return self.reference or self.teacher != "none" or self.old_logp or self.unit > 1 or self.rollouts > 0

    @property
    def own_demonstrations(self) -> bool:
        """Questions bring demonstrations of their own to the rollouts."""
        return self.rollouts > 0 and self.demonstration in ("row", "prefix")
