"""Every algorithm with the options that change its mathematics, and random float64 batches that satisfy its needs.

A new algorithm is added to `CASES`; all tests under `parity/` and `properties/` then run over it, here or, of properties that
hang on its kind alone, in the system tier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from posttrain import Algorithm, Batch, LossOutput, Needs, Origin, build_algorithm, policy_gradient_loss
from posttrain.algorithms import ALGORITHMS
from posttrain.estimator.divergence import Divergence
from posttrain.settings.doors.kinds import name_of

NAMES = [name_of(config) for config in ALGORITHMS]
VOCABULARY = 7
APPLIED = {"kl_coef": 0.7, "entropy_coef": 0.4}
"""What coefficients are that follow what is measured."""
GROUP = 4


@dataclass(frozen=True)
class Case:
    """An algorithm and its options; `label` tells the variants of one algorithm apart."""

    name: str
    label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}-{self.label}" if self.label else self.name

    @cached_property
    def algorithm(self) -> Algorithm:
        return build_algorithm(self.name, **self.options)


def _corrections() -> list[Case]:
    levels, forms = ("token", "sequence", "geometric"), ("truncate", "mask")
    return [
        # One update: made of the current log-probs, detached. Four: of the collecting policy's.
        Case("grpo", f"{level}_{form}_{updates}", {"updates": updates, "correction": _correction(level, form)})
        for level in levels
        for form, updates in zip(forms, (1, 4), strict=True)
    ]


def _correction(level: str, form: str) -> dict[str, Any]:
    return {"level": level, "form": form, "cap": 1.5}


CASES = [
    Case("sft"),
    Case("sft", "anchored", {"kl_coef": 0.3}),
    Case("sft", "weights", {"weights": "per_token"}),
    Case("sft", "weighted_mean", {"weights": "per_weight"}),
    Case("dft"),
    Case("dft", "mixed", {"sft_coef": 0.3}),
    Case("asft"),
    Case("asft", "mixed", {"sft_coef": 0.3}),
    Case("iw_sft"),
    Case("iw_sft", "bounded", {"exponent": 2.0, "max_weight": 1.1}),
    Case("psft"),
    *(Case("f_sft", divergence, {"divergence": divergence}) for divergence in ("tv", "hellinger", "kl", "js")),
    Case("f_sft", "", {"beta": 0.7}),
    Case("f_sft", "held", {"divergence": "js", "beta": 1.0, "guard": 0.4}),
    Case("a_lol"),
    *(Case("a_lol", form, {"form": form}) for form in ("a_lol_seq", "a_lol_free", "a_lol_kl", "r_lol", "wbc", "r_gold")),
    Case("rwr"),
    Case("awr", "", {"beta": 0.5, "cap": 4.0}),
    Case("ascent"),
    Case("unlikelihood"),
    Case("npo", "", {"beta": 0.7}),
    Case("forget_retain"),
    Case("forget_retain", "npo", {"forget": "npo", "beta": 0.7, "forget_coef": 0.6, "retain_coef": 0.3, "kl_coef": 0.2}),
    Case("dpo"),
    Case("dpo", "smoothed", {"beta": 0.7, "label_smoothing": 0.1}),
    Case("ipo"),
    Case("ipo", "token", {"average": "token", "beta": 0.7}),
    Case("robust_dpo"),
    Case("hinge_dpo", "", {"beta": 0.7}),
    Case("exo"),
    Case("nca", "", {"beta": 0.3}),
    Case("bco_pair"),
    Case("sppo"),
    Case("apo_zero"),
    Case("apo_down"),
    Case("discopop"),
    Case("dpop"),
    Case("r_dpo", "", {"length_coef": 0.1}),
    Case("ln_dpo"),
    Case("ld_dpo", "", {"alpha": 0.3}),
    *(Case("f_dpo", divergence, {"divergence": divergence}) for divergence in ("forward_kl", "js", "alpha")),
    Case("rpo"),
    Case("rpo", "token", {"sft_average": "token", "sft_coef": 0.3}),
    Case("simpo"),
    Case("simpo", "sft", {"sft_coef": 0.3, "gamma": 0.2}),
    Case("alpha_po"),
    Case("cpo"),
    Case("orpo"),
    Case("slic", "", {"delta": 3.0}),
    Case("wpo"),
    Case("tpo", "", {"beta": 0.3}),
    Case("tpo", "length", {"average": "token", "beta": 2.0, "gamma": 0.5, "sft_coef": 0.3}),
    Case("kto"),
    Case("kto", "weighted", {"desirable": 1.3, "undesirable": 0.7, "beta": 0.3}),
    Case("kto", "zero", {"anchor": "zero"}),
    Case("bco"),
    Case("sami"),
    Case("sami", "three", {"principles": 3}),
    Case("grpo"),
    Case("grpo", "several", {"updates": 4}),
    Case("grpo", "no_kl", {"updates": 4, "kl_coef": 0.0}),
    Case("grpo", "k2", {"updates": 4, "kl": "k2", "kl_coef": 0.5}),
    Case("grpo", "kl_in_reward", {"updates": 4, "kl_in": "reward", "kl_coef": 0.5}),
    Case("grpo", "dual", {"updates": 4, "dual_clip": 1.3, "kl_coef": 0.0}),
    Case("grpo", "entropy", {"updates": 4, "entropy_coef": 0.3}),
    Case("grpo", "adaptive", {"updates": 4, "kl_coef": {"target": 0.1}, "entropy_coef": {"target": 0.5}}),
    Case("grpo", "adaptive_in_reward", {"updates": 4, "kl_coef": {"target": 0.1}, "kl_in": "reward"}),
    Case("grpo", "unbiased", {"updates": 4, "kl": "unbiased", "kl_coef": 0.5}),
    Case("grpo", "stale_rows", {"updates": 4, "off_policy_mask": 0.1, "kl_coef": 0.0}),
    *_corrections(),
    Case("dr_grpo", "", {"max_tokens": 9}),
    Case("dr_grpo", "several", {"max_tokens": 9, "updates": 4}),
    Case("dapo"),
    Case("dapo", "several", {"updates": 4}),
    Case("dapo", "all_groups", {"updates": 4, "dynamic_sampling": False}),
    Case("gspo"),
    Case("gspo", "several", {"updates": 4, "clip_low": 0.05, "clip_high": 0.1}),
    Case("gspo", "by_tokens", {"updates": 4, "clip_low": 0.05, "clip_high": 0.1, "average": "sequence_sum"}),
    Case("cispo"),
    Case("cispo", "several", {"updates": 4, "clip_high": 0.3, "kl_coef": 0.1}),
    Case("gmpo", "several", {"updates": 4, "clip_low": 0.1, "clip_high": 0.2}),
    Case("sapo", "several", {"updates": 4}),
    Case("dppo", "several", {"updates": 4, "limit": 0.05, "ratio_cap": 1.3}),
    Case("dppo", "kl", {"updates": 4, "divergence": "kl", "limit": 0.01}),
    Case("vespo", "several", {"updates": 4, "negative_decay": 2.1}),
    Case("gpg"),
    Case("dro", "several", {"updates": 4, "std": False}),
    Case("gdpo", "weighted", {"updates": 4, "reward_weights": {"right": 1.0, "short": 0.3}}),
    Case("grpo_lead", "several", {"updates": 4, "length": 0.5, "steepness": 3.0}),
    Case("f_grpo", "several", {"updates": 4, "power": 2.0}),
    Case("pass_k", "several", {"updates": 4, "k": 3}),
    Case("best_of_group", "several", {"updates": 4}),
    Case("top_entropy", "several", {"updates": 4}),
    Case("clip_cov", "several", {"updates": 4, "share": 0.2, "low": 0.2, "high": 1.0}),
    Case("kl_cov", "several", {"updates": 4, "share": 0.3, "kl_cov_coef": 0.5}),
    Case("opo"),
    Case("reinforce"),
    Case("reinforce", "baseline", {"baseline": "group_mean", "entropy_coef": 0.3}),
    Case("reinforce", "kl", {"kl_coef": 0.1}),
    Case("reinforce", "corrected", {"correction": _correction("token", "truncate")}),
    Case("reinforce", "off_policy", {"correction": _correction("sequence", "truncate")}),
    Case("rloo"),
    Case("rloo", "no_kl", {"kl_coef": 0.0}),
    Case("rloo", "several", {"updates": 4}),
    Case("remax"),
    Case("remax", "kl", {"kl_coef": 0.1}),
    Case("a_star_po", "", {"beta": 0.3}),
    Case("reinforce_pp"),
    Case("reinforce_pp", "baseline", {"updates": 4, "baseline": "group_mean", "discount": 0.9}),
    Case("asymre", "several", {"updates": 4}),
    Case("opmd", "several", {"updates": 4, "temperature": 0.3}),
    Case("opmd", "mean", {"updates": 4, "temperature": 0.3, "baseline": "mean"}),
    Case("rec", "several", {"updates": 4}),
    Case("rec", "two_side", {"updates": 4, "region": "two_side", "importance": True}),
    Case("rec", "ring", {"updates": 4, "region": "ring", "far_low": 0.3, "far_high": 0.5}),
    Case("p3o"),
    Case("topr", "several", {"updates": 4, "baseline": 0.3, "average": "sequence_mean"}),
    Case("hpt", "", {"max_tokens": 9, "gate": 1}),
    Case(
        "hpt", "paper", {"max_tokens": 9, "gate": 1, "clip": True, "std": True, "sft_average": "sequence_mean", "updates": 4}
    ),
    Case("hpt", "weak", {"max_tokens": 9, "gate": 2, "sft_coef": 0.3, "updates": 4, "kl_coef": 0.1, "entropy_coef": 0.1}),
    Case(
        "hpt", "soft", {"max_tokens": 9, "rollouts": 3, "coefficients": ((0, 1), (0.25, 0.5), (0.6, 0), (1, 0)), "updates": 4}
    ),
    Case("hpt", "mixed", {"max_tokens": 9, "gate": 1, "gate_off": 2, "off_coef": 0.7, "gamma": 0.3, "sft_coef": 0.2}),
    Case("prefix_rft", "", {"max_tokens": 9}),
    Case("prefix_rft", "several", {"max_tokens": 9, "updates": 4, "dual_clip": 1.3, "keep": 0.3}),
    Case("prefix_rft", "group", {"max_tokens": 9, "updates": 4, "baseline": "group", "keep": 1.0, "entropy_coef": 0.1}),
    Case("prefix_rft", "uncentred", {"max_tokens": 9, "updates": 4, "baseline": "uncentred", "keep": 0.4}),
    Case("uft", "several", {"updates": 4, "average": "sequence_mean", "sft_coef": 0.3, "kl_coef": 0.1, "entropy_coef": 0.2}),
    Case("bread", "several", {"updates": 4}),
    Case("bread", "kl", {"updates": 4, "kl_coef": 0.1}),
    Case("luffy", "", {"max_tokens": 9}),
    Case("luffy", "several", {"max_tokens": 9, "updates": 4, "clip": True, "std": True, "gamma": 0.3}),
    Case("luffy", "corrected", {"max_tokens": 9, "updates": 4, "correction": _correction("token", "truncate")}),
    Case("srft", "", {"max_tokens": 9}),
    Case("srft", "several", {"max_tokens": 9, "updates": 4, "std": False, "entropy_cap": 50.0, "sft_coef": 0.8}),
    Case("chord"),
    Case("chord", "mu", {"mu_peak": 0.9, "mu_valley": 0.05, "mu_warmup": 0.2, "mu_decay": 0.5, "phi": False, "updates": 4}),
    Case("grpo_sft"),
    Case("grpo_sft", "several", {"updates": 4, "sft_coef": 0.4, "kl_coef": 0.1}),
    Case("relift"),
    Case("relift", "several", {"updates": 4, "sft_coef": 0.4, "std": True, "kl_coef": 0.1, "entropy_coef": 0.1}),
    Case("kd"),
    Case("kd", "hot", {"alpha": 0.8, "temperature": 2.5}),
    Case("gkd"),
    Case("gkd", "forward", {"beta": 0.0}),
    Case("gkd", "reverse", {"beta": 1.0}),
    Case("gkd", "beside", {"beta": 0.1, "demonstrations": 4}),
    Case("opd"),
    Case("opd", "several", {"updates": 4, "clip_low": 0.1, "clip_high": 0.1, "kl_max": 0.4, "kl_coef": 0.1}),
    Case("opd", "rewarded", {"updates": 4, "reward_coef": 0.7, "kl_max": 0.5}),
    Case("sdft", "", {"beta": 0.3}),
    Case("sdft", "tokens", {"compare": "tokens", "kl_max": 0.4}),
    Case("sdpo", "", {"kl_max": 0.4}),
    Case("sdpo", "mixed", {"distillation_weight": 0.6, "updates": 4, "ratio_cap": 1.2, "kl_coef": 0.1}),
    Case("sdpo", "whole", {"compare": "distributions", "distillation_weight": 0.3, "average": "sequence_mean", "beta": 0.3}),
]
BY_ID = {str(case): case for case in CASES}


def over(wanted: Callable[[Case], Any] = lambda case: True, *, each: Literal["case", "part"] = "case") -> Any:
    """Parametrise a test by `case`, over those that are wanted: all of them; or here those that bring a part or a need that
    none before them has, and the others in the system tier.
    """
    seen, params = set[Any](), list[Any]()
    for case in (case for case in CASES if wanted(case)):
        parts = made_of(case.algorithm)
        params.append(pytest.param(case, marks=[pytest.mark.system] * (each == "part" and parts <= seen), id=str(case)))
        seen |= parts
    return pytest.mark.parametrize("case", params)


def made_of(algorithm: Algorithm) -> set[Any]:
    """The parts of an algorithm, without their numbers and what they are made of themselves, and its needs."""

    def bare(part: Any) -> Any:
        return part.func if isinstance(part, partial) else part

    needs = roughly(algorithm.needs)
    found: set[Any] = {
        (name, getattr(needs, name)) for name in (one.name for one in dataclasses.fields(Needs)) if name != "pairs"
    }
    for term in algorithm.terms:
        one = term.estimator
        parts = (
            one.denominator,
            one.advantage,
            one.mask,
            one.correction,
            term.select,
            term.average.count,
            term.average.row_scale,
        )
        found |= set(map(bare, parts))
    return found | {bare(algorithm.credit)} | {penalty.quantity for penalty in algorithm.penalties}


def roughly(needs: Needs) -> Needs:
    """Needs are alike where they differ in numbers of rollouts, demonstrations, updates, prompts only, one update apart."""
    few = {field: min(getattr(needs, field), 2) for field in ("rollouts", "updates", "demonstrations", "crossed")}
    return dataclasses.replace(needs, **few, unit=4 if needs.crossed else needs.unit)


def first_of_needs(algorithms: Iterable[Algorithm]) -> list[str]:
    """The name of the first algorithm of each distinct set of needs."""
    first: dict[Needs, str] = {}
    for one in algorithms:
        first.setdefault(roughly(one.needs), one.name)
    return [*first.values()]


def each_needs(variants: Iterable[tuple[str, Mapping[str, Any]]]) -> Any:
    """Parametrise by `name` and `options`: the first of each distinct set of needs here, the others in the system tier."""
    seen: set[Needs] = set()
    params: list[Any] = []
    for name, options in variants:
        alike = roughly(build_algorithm(name, **options).needs)
        words = "-".join(f"{key}={value}" for key, value in options.items())
        params.append(pytest.param(name, options, marks=[pytest.mark.system] * (alike in seen), id=f"{name}-{words}"))
        seen.add(alike)
    return pytest.mark.parametrize(("name", "options"), params)


def on_policy(case: Case) -> bool:
    """Whether rollouts, and so rewards, are its data."""
    return case.algorithm.needs.rollouts > 0


shapes = st.fixed_dictionaries({"seed": st.integers(0, 2**31), "units": st.integers(1, 3), "width": st.integers(1, 6)})


@dataclass(frozen=True)
class Sample:
    """A batch before `prepare`, with the logits [B, T, V] of the policy and of its reference."""

    algorithm: Algorithm
    batch: Batch
    logits: Tensor
    ref_logits: Tensor
    teacher_logits: Tensor

    @property
    def tokens(self) -> Tensor:
        assert self.batch.tokens is not None
        return self.batch.tokens

    @property
    def reward(self) -> Tensor:
        assert self.batch.reward is not None
        return self.batch.reward

    def inputs(self, logits: Tensor | None = None) -> dict[str, Any]:
        """What `policy_gradient_loss` takes beside the batch: logp, and what the penalties ask for."""
        current = (self.logits if logits is None else logits).log_softmax(-1)
        taught = self.algorithm.needs.teacher == "full"
        whole = divergences(current, self.teacher_logits if taught else self.ref_logits, self.algorithm.divergence)
        made = {"entropy": -(current.exp() * current).sum(-1), **whole}
        asked = {penalty.quantity for penalty in self.algorithm.penalties}
        return {"logp": token_logp(current, self.tokens)} | {name: made[name] for name in asked}


def divergences(current: Tensor, other: Tensor, by: Divergence) -> dict[str, Tensor]:
    """All of them, from the other's logits, by plain autograd."""
    p, q = ((one / by.temperature).log_softmax(-1) for one in (current, other))
    mixed = (by.beta * q.exp() + (1 - by.beta) * p.exp()).log()

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a.exp() * (a - b)).sum(-1)

    return {"kl": kl(q, p), "reverse_kl": kl(p, q), "jsd": by.beta * kl(q, mixed) + (1 - by.beta) * kl(p, mixed)}


def token_logp(logps: Tensor, tokens: Tensor) -> Tensor:
    return logps.gather(-1, tokens[..., None])[..., 0]


def sample(algorithm: Algorithm, *, seed: int = 0, units: int = 2, width: int = 5) -> Sample:
    """`units` groups of four rows (or twice as many pairs), with gaps and padding in the loss mask.

    In batches of rollouts the second row has no loss token, the last group's rewards are equal (unless it is the only
    one), and a few tokens are demonstration; of an algorithm that asks for demonstrations, each group's last row, or its
    head. Old, reference and behavior policies lie far enough away to be clipped.
    """
    needs = algorithm.needs
    rows = units * (GROUP if GROUP % needs.unit == 0 else needs.unit * (1 + (needs.unit < GROUP)))
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    def chance(probability: float) -> Tensor:
        return torch.rand(rows, width, generator=random) < probability

    sampled = needs.rollouts > 0
    shown = needs.own_demonstrations or needs.demonstrations > 0
    logits = normal(rows, width, VOCABULARY)
    ref_logits = logits + 0.5 * normal(rows, width, VOCABULARY)
    tokens = torch.randint(VOCABULARY, (rows, width), generator=random)
    logp, ref_logp = (token_logp(policy.log_softmax(-1), tokens) for policy in (logits, ref_logits))
    lengths = torch.randint(1, width + 1, (rows, 1), generator=random)
    loss_mask = (torch.arange(width) < lengths) & ~chance(0.2)
    demonstrated = chance(0.15) if sampled else torch.ones_like(loss_mask)
    last = torch.arange(rows)[:, None] % GROUP == GROUP - 1
    if shown:  # the last row of a group: a demonstration, or its prefix
        heads = torch.rand(rows, 1, generator=random) * lengths if needs.demonstration == "prefix" else width
        demonstrated = last & (torch.arange(width) < heads)
    origin = torch.where(demonstrated, Origin.DEMO, Origin.ROLLOUT)
    group = torch.arange(rows) // (GROUP if sampled else 1)
    if needs.demonstration == "separate":
        group = torch.where(last[:, 0], rows + torch.arange(rows), group)
    reward = normal(rows)
    correct = torch.rand(rows, generator=random) < 0.4
    if sampled:
        loss_mask[1] = False
    if needs.unit > 1:
        loss_mask[:, 0] = True  # an answer of no tokens is no preference
    if units > 1:
        reward[-GROUP:] = reward[-1]
    old_logp = logp + 0.4 * normal(rows, width)
    collected = old_logp if needs.old_logp else logp
    behavior = torch.where(origin == Origin.DEMO, 0.0, collected + 0.4 * normal(rows, width))
    entropy = normal(rows, width).abs() if needs.collected_entropy != "none" else None
    teacher_logits = logits + 0.5 * normal(rows, width, VOCABULARY)
    batch = Batch(
        loss_mask=loss_mask,
        tokens=tokens,
        origin=origin,
        behavior_logp=behavior,
        old_logp=old_logp if needs.old_logp else None,
        ref_logp=ref_logp if needs.ref_logp else None,
        weight=worth(needs.weight, rows, width, random),
        teacher_logp=token_logp(teacher_logits.log_softmax(-1), tokens) if needs.teacher == "logp" else None,
        entropy=entropy,
        collision=(2 * logits.log_softmax(-1)).logsumexp(-1) if needs.collision else None,
        group=group,
        reward=reward if sampled else None,
        rewards_by_name={"right": correct.double(), "short": normal(rows)} if sampled else {},
        correct=correct if needs.verdict else None,
        chosen=torch.arange(rows) % needs.unit == 0 if needs.preference else None,
        anchor=torch.full((rows,), 0.4, dtype=torch.float64) if needs.anchor != "none" else None,
        baseline=normal(units)[group % units] if needs.baseline != "none" else None,
        taught=torch.rand(rows, generator=random) < 0.6 if needs.shows_right else None,
        progress=0.3,
        coefficients={one.name: APPLIED[one.name] for one in algorithm.adaptive},
        unit=needs.unit,
    )
    return Sample(algorithm, batch, logits, ref_logits, teacher_logits)


def worth(column: str, rows: int, width: int, random: torch.Generator) -> Tensor | None:
    """Numbers of tokens, whose sums are exact, and of whole rows where they are a row's own."""
    if column == "none":
        return None
    numbers = torch.randint(-2, 9, (rows, width), generator=random).double() / 4
    if column == "weight":
        return numbers
    numbers = numbers[:, :1].expand(rows, width)
    return torch.where(numbers < 0.5, -1.0, 1.0).double() if column in ("forget", "label") else numbers


def stand_in(algorithms: Sequence[Algorithm]) -> Algorithm:
    """The first of them with the needs of all: a batch that is drawn for it has what each of them reads."""

    def most(value: Any) -> Any:
        return value != "none", value if isinstance(value, int | str) else ""

    wanted = {
        field.name: max((getattr(algorithm.needs, field.name) for algorithm in algorithms), key=most)
        for field in dataclasses.fields(Needs)
        if field.name != "pairs"
    }
    return dataclasses.replace(algorithms[0], needs=Needs(**wanted))


def prepared(case: Case, **shape: int) -> tuple[Algorithm, Batch, dict[str, Any]]:
    """What a test of the loss begins with."""
    drawn = sample(case.algorithm, **shape)
    return case.algorithm, case.algorithm.prepare(drawn.batch), drawn.inputs()


def differentiate(
    algorithm: Algorithm, batch: Batch, inputs: Mapping[str, Tensor], **options: Any
) -> tuple[LossOutput, dict[str, Tensor]]:
    """The loss, and its gradient with respect to each input."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    output = policy_gradient_loss(algorithm, batch=batch, **leaves, **options)
    return output, dict(zip(leaves, torch.autograd.grad(output.loss, list(leaves.values())), strict=True))


def map_fields(batch: Batch, change: Callable[[Tensor], Tensor], *, per_token: bool = False) -> Batch:
    """The batch with `change` applied to its floating-point tensors, or to the [B, T] ones among them only."""
    values = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    chosen = {
        name: value
        for name, value in values.items()
        if isinstance(value, Tensor) and value.is_floating_point() and (value.dim() == 2 or not per_token)
    }
    return batch.replace(**{name: change(value) for name, value in chosen.items()})


def close(actual: Any, expected: Any, rtol: float = 1e-12) -> None:
    """Equal to `rtol` of the largest magnitude: a gradient's small entries are differences of its large ones."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name in expected:
            close(actual[name], expected[name], rtol)
        return
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=rtol * largest)
