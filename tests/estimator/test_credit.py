"""The bookkeeping of rollouts beside demonstrations: gates, prefixes, groups, schedules, and the limits of each algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import close
from posttrain import Algorithm, Batch, Origin, Question, build_algorithm, policy_gradient_loss
from posttrain.errors import RecipeError
from posttrain.estimator.parts.coefficient import rest, warmup_cosine
from posttrain.estimator.parts.credit.tokens import most_uncertain
from posttrain.estimator.view import View

N, WIDTH = 4, 5
ROWS = N + 1
LENGTH = {"max_tokens": WIDTH}
NARROW = {"clip_low": 0.1, "clip_high": 0.05, "updates": 4}


def groups(*solved: int, demonstrated: bool = True, **fields: Any) -> Batch:
    """A group for each count of right rollouts, its demonstration last."""
    rows = len(solved) * ROWS
    correct = torch.tensor([[i < right for i in range(N)] + [True] for right in solved]).flatten()
    lengths = 1 + torch.arange(rows)[:, None] % WIDTH
    batch = Batch(
        loss_mask=torch.arange(WIDTH) < lengths,
        origin=torch.where(torch.arange(rows)[:, None] % ROWS == N, Origin.DEMO, Origin.ROLLOUT).expand(rows, WIDTH),
        group=torch.arange(rows) // ROWS,
        reward=correct.double(),
        correct=correct,
        **fields,
    )
    return batch if demonstrated else batch.take([i for i in range(rows) if i % ROWS < N])


def logps(batch: Batch, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return -2 * torch.rand(batch.loss_mask.shape, dtype=torch.float64, generator=random)


def gradient(algorithm: Algorithm, batch: Batch, logp: Tensor | None = None) -> Tensor:
    leaf = (logps(batch) if logp is None else logp).clone().requires_grad_()
    policy_gradient_loss(algorithm, leaf, algorithm.prepare(batch)).loss.backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("gate", [-1, 0, 1, 2, 4])
def test_the_gate_takes_the_rollouts_or_the_demonstration(gate: int) -> None:
    prepared = build_algorithm("hpt", rollouts=N, gate=gate, **LENGTH).prepare(groups(0, 1, 2, 4))
    carries = prepared.loss_mask.any(-1).view(-1, ROWS)
    for right, rows in zip((0, 1, 2, 4), carries.tolist(), strict=True):
        assert rows == ([False] * N + [True] if right <= gate else [True] * N + [False])


def test_a_solved_group_stays_with_advantages_of_zero_and_is_in_n() -> None:
    algorithm = build_algorithm("hpt", rollouts=N, **LENGTH)
    batch = algorithm.prepare(groups(4, 2))
    assert batch.advantage is not None and not batch.advantage[:N].any()
    assert not algorithm.has_signal(batch)[:N].any()
    assert algorithm.counts(batch)["policy"] == 2 * N * WIDTH
    assert algorithm.counts(batch)["sft"] == 0


def test_a_question_without_a_demonstration_is_left_to_rl() -> None:
    algorithm = build_algorithm("hpt", rollouts=N, **LENGTH)
    batch = algorithm.prepare(groups(0, demonstrated=False))
    assert batch.loss_mask.any(-1).all()


def test_of_a_group_that_could_not_be_graded_nothing_is_learnt() -> None:
    graded = torch.ones(2 * ROWS, dtype=torch.bool)
    graded[:N] = False
    prepared = build_algorithm("hpt", rollouts=N, **LENGTH).prepare(groups(0, 0, reward_mask=graded))
    assert prepared.loss_mask.any(-1).tolist() == [False] * (ROWS + N) + [True]


def test_the_gate_counts_graded_rollouts_only() -> None:
    graded = torch.ones(ROWS, dtype=torch.bool)
    graded[0] = False  # the only right one
    prepared = build_algorithm("hpt", rollouts=N, **LENGTH).prepare(groups(1, reward_mask=graded))
    assert prepared.loss_mask.any(-1).tolist() == [False] * N + [True]


@pytest.mark.parametrize("name", ["hpt", "srft"])
def test_a_verdict_is_asked_for(name: str) -> None:
    batch = groups(1, entropy=torch.ones(ROWS, WIDTH, dtype=torch.float64)).replace(correct=None)
    with pytest.raises(ValueError, match=r"set Batch\.correct, by a reward with verdict: true"):
        build_algorithm(name, rollouts=N, **LENGTH).prepare(batch)


@pytest.mark.parametrize(("name", "inside"), [("luffy", True), ("hpt", False), ("grpo_sft", False), ("chord", False)])
def test_whether_the_demonstration_is_in_the_baseline(name: str, inside: bool) -> None:
    options: dict[str, Any] = {"rollouts": N} if name in ("chord", "grpo_sft") else {"rollouts": N, **LENGTH}
    prepared = build_algorithm(name, **options).prepare(groups(1, 2, 3))
    assert prepared.advantage is not None
    per_row = prepared.advantage[:, 0].view(-1, ROWS)
    counted = per_row if inside else per_row[:, :N]
    assert counted.sum(-1).abs().max() < 1e-12
    assert inside == bool(per_row[:, N].any())


def plans(progress: float, demonstration: tuple[int, ...] | None, **options: Any) -> list[int]:
    algorithm = build_algorithm("prefix_rft", rollouts=N, **LENGTH, **options)
    lengths: list[int] = []
    for seed in range(200):
        requests = algorithm.plan(Question(7, [1, 2], demonstration), progress, Random(seed))
        assert sum(request.n for request in requests) == N
        assert all(tuple(request.prompt) == (1, 2) for request in requests)
        for request in requests[1:]:
            assert demonstration is not None and request.n == 1
            assert tuple(request.prefix) == demonstration[: len(request.prefix)]
            assert request.question != requests[0].question
            lengths.append(len(request.prefix))
    return lengths


def test_prefixes_are_long_at_first_and_of_any_length_at_the_end() -> None:
    demonstration = tuple(range(100))
    assert set(plans(0.0, demonstration)) == {95}
    middle, late = plans(0.5, demonstration), plans(1.0, demonstration)
    assert 50 <= min(middle) < 60 and 85 < max(middle) <= 95
    assert 5 <= min(late) < 12 and 85 < max(late) <= 95


def test_a_prefix_is_neither_nothing_nor_all() -> None:
    assert set(plans(1.0, (1, 2), low_end=0.0)) == {1}
    assert set(plans(0.0, (1, 2, 3))) == {2}
    assert set(plans(0.0, (1, 2, 3), low_start=1.0, high=1.0)) == {2}, "a share of 1 leaves a token to be sampled"


@pytest.mark.parametrize("demonstration", [None, (1,), ()])
def test_without_a_demonstration_to_cut_all_rollouts_are_plain(demonstration: tuple[int, ...] | None) -> None:
    assert plans(0.5, demonstration) == []


def hybrid(reward: float = 1.0) -> Batch:
    """Three plain rollouts, one of them right, and one that continues a prefix of three tokens."""
    origin = torch.zeros(N, WIDTH, dtype=torch.int64)
    origin[-1, :3] = Origin.DEMO
    return Batch(
        loss_mask=torch.ones(N, WIDTH, dtype=torch.bool),
        origin=origin,
        group=torch.zeros(N, dtype=torch.int64),
        reward=torch.tensor([1.0, 0.0, 0.0, reward], dtype=torch.float64),
        entropy=torch.arange(N * WIDTH, dtype=torch.float64).view(N, WIDTH),
    )


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize(
    ("baseline", "b", "of_continuation"),
    [("plain", lambda _: 1 / 3, None), ("group", lambda reward: (1 + reward) / 4, None), ("uncentred", lambda _: 1 / 3, 0.0)],
    ids=["plain", "group", "uncentred"],
)
def test_what_a_continued_prefix_is_credited_with(
    baseline: str, b: Callable[[float], float], of_continuation: float | None, reward: float
) -> None:
    made = build_algorithm("prefix_rft", rollouts=N, baseline=baseline, keep=1.0, **LENGTH).prepare(hybrid(reward=reward))
    assert made.advantage is not None
    rewards = torch.tensor([1.0, 0.0, 0.0, reward], dtype=torch.float64)
    expected = (rewards - b(reward))[:, None].repeat(1, WIDTH)
    expected[-1, 3:] = reward - (b(reward) if of_continuation is None else of_continuation)
    close(made.advantage, expected)


def test_of_the_prefix_tokens_the_most_uncertain_are_kept_and_the_continuation_is_untouched() -> None:
    made = build_algorithm("prefix_rft", rollouts=N, **LENGTH).prepare(hybrid())
    assert made.advantage is not None
    assert made.advantage[-1].ne(0).tolist() == [False, False, True, True, True]
    assert made.advantage[:-1].ne(0).all()


@pytest.mark.parametrize("size", [0, 1, 4, 5, 9, 10, 31])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 1.0])
def test_how_many_prefix_tokens_are_kept(size: int, keep: float) -> None:
    rows = -(-max(size, 1) // WIDTH)
    origin = (torch.arange(rows * WIDTH) < size).view(rows, WIDTH).long()
    ones = torch.ones(rows, WIDTH, dtype=torch.float64)
    batch = Batch(loss_mask=ones.bool(), origin=origin, advantage=ones, entropy=0.1 * ones)
    kept = most_uncertain(batch, keep=keep).advantage
    assert kept is not None
    assert int((kept.ne(0) & (origin == Origin.DEMO)).sum()) == size - int((1 - keep) * size)
    assert (kept[origin == Origin.ROLLOUT] == 1).all()


def test_schedules() -> None:
    mu = {"peak": 0.9, "valley": 0.05, "warmup": 0.1, "decay": 0.5}
    values = [warmup_cosine(p / 20, **mu) for p in range(21)]
    assert values[0] == 0 and values[1] == pytest.approx(0.45) and values[2] == pytest.approx(0.9)
    assert all(math.isclose(value, 0.05) for value in values[12:])
    assert values[2:] == sorted(values[2:], reverse=True)
    assert values[7] == pytest.approx(0.475)
    assert rest(0.05, of=lambda p: warmup_cosine(p, **mu)) == pytest.approx(0.55)
    assert warmup_cosine(0.3, peak=0.1, valley=0.1, warmup=0.0, decay=0.0) == pytest.approx(0.1)


@pytest.mark.parametrize("gate", [-1, 0, 2, N])
def test_a_soft_gate_of_ones_and_noughts_is_the_gate(gate: int) -> None:
    batch = groups(0, 1, 2, 4, 4)
    batch = batch.replace(reward_mask=torch.arange(len(batch.group)) < 4 * ROWS, old_logp=logps(batch, 1))
    pairs = [(0, 1) if right <= gate else (1, 0) for right in range(N + 1)]
    options = {"rollouts": N, "updates": 2, **LENGTH}
    hard, soft = (build_algorithm("hpt", **options, **own) for own in ({"gate": gate}, {"coefficients": pairs}))
    assert torch.equal(hard.prepare(batch).loss_mask, soft.prepare(batch).loss_mask)
    assert hard.counts(hard.prepare(batch)) == soft.counts(soft.prepare(batch))
    close(gradient(soft, batch), gradient(hard, batch))


def test_between_the_gates_a_demonstration_is_learnt_by_its_reward() -> None:
    batch = groups(0, 1, 2, 3)
    algorithm = build_algorithm("hpt", rollouts=N, gate=0, gate_off=2, **LENGTH)
    prepared = algorithm.prepare(batch)
    assert prepared.mark is not None and prepared.advantage is not None
    carries = prepared.loss_mask.any(-1).view(-1, ROWS).tolist()
    assert carries == [[False] * N + [True]] * 3 + [[True] * N + [False]]
    terms = {term.name: term.select(prepared).any(-1).nonzero()[:, 0].tolist() for term in algorithm.terms}
    assert terms == {"policy": list(range(3 * ROWS, 4 * ROWS - 1)), "sft": [N], "off_policy": [ROWS + N, 2 * ROWS + N]}
    wrong = batch.replace(reward=torch.zeros_like(batch.group, dtype=torch.float64))
    assert not gradient(algorithm, wrong)[[ROWS + N, 2 * ROWS + N]].any() and gradient(algorithm, batch)[ROWS + N].any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gate_off": 0}, "gate_off: it is a count of right rollouts above gate, 0, and up to 4"),
        ({"gate_off": 5}, "gate_off: it is a count of right rollouts above gate, 0, and up to 4"),
        ({"coefficients": [(0, 1)]}, "coefficients: a pair for each number of right rollouts, 0 to 4, is needed"),
        ({"coefficients": [(0, 1)] * 5, "gate": 1}, "gate: nothing reads it here; coefficients: null does"),
        ({"off_coef": 0.5}, "off_coef: nothing reads it here; gate_off does"),
    ],
)
def test_gates_that_contradict_each_other_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        build_algorithm("hpt", rollouts=N, **options, **LENGTH)


def alone(batch: Batch, gradients: Tensor, *, demonstrations: bool) -> tuple[list[int], Tensor]:
    rows = [i for i in range(len(gradients)) if (i % ROWS == N) == demonstrations]
    assert not gradients[[i for i in range(len(gradients)) if i not in rows]].any()
    return rows, gradients[rows]


@pytest.mark.parametrize(
    ("name", "options", "other", "theirs"),
    [
        ("hpt", {"gate": -1, "clip": True, **LENGTH}, "dr_grpo", LENGTH),
        ("hpt", {"gate": -1, "clip": True, **NARROW, **LENGTH}, "dr_grpo", {**NARROW, **LENGTH}),
        ("grpo_sft", {"sft_coef": 0.0, **NARROW}, "grpo", {"kl_coef": 0.0, **NARROW}),
        ("chord", {"mu_peak": 0.0, "mu_valley": 0.0, **NARROW}, "dapo", {"dynamic_sampling": False, **NARROW}),
    ],
    ids=["hpt", "hpt-clipped", "grpo_sft", "chord"],
)
def test_without_its_demonstrations(name: str, options: dict[str, Any], other: str, theirs: dict[str, Any]) -> None:
    batch = groups(0, 1, 3)
    batch = batch.replace(old_logp=logps(batch, 1) if options.get("updates") else None)
    rows, own = alone(batch, gradient(build_algorithm(name, rollouts=N, **options), batch), demonstrations=False)
    close(own, gradient(build_algorithm(other, rollouts=N, **theirs), batch.take(rows), logps(batch)[rows]))


@pytest.mark.parametrize(
    ("name", "options", "other"),
    [
        ("hpt", {"gate": N, **LENGTH}, "sft"),
        ("chord", {"mu_peak": 1.0, "mu_valley": 1.0, "phi": False}, "sft"),
    ],
    ids=["hpt", "chord"],
)
def test_with_its_demonstrations_alone(name: str, options: dict[str, Any], other: str) -> None:
    batch = groups(0, 1, 3)
    rows, own = alone(batch, gradient(build_algorithm(name, rollouts=N, **options), batch), demonstrations=True)
    close(own, gradient(build_algorithm(other), batch.take(rows), logps(batch)[rows]))


def test_prefix_rft_without_prefixes_is_dr_grpo() -> None:
    batch = groups(0, 1, 3, demonstrated=False)
    batch = batch.replace(old_logp=logps(batch, 1), entropy=logps(batch, 2))
    own = build_algorithm("prefix_rft", rollouts=N, updates=4, baseline="group", dual_clip=None, **LENGTH)
    close(gradient(own, batch), gradient(build_algorithm("dr_grpo", rollouts=N, updates=4, **LENGTH), batch))


def test_luffy_without_demonstrations_and_with_the_clip_is_dr_grpo() -> None:
    batch = groups(0, 1, 3, demonstrated=False)
    batch = batch.replace(old_logp=logps(batch, 1))
    own = build_algorithm("luffy", rollouts=N, updates=4, clip=True, **LENGTH)
    close(gradient(own, batch), gradient(build_algorithm("dr_grpo", rollouts=N, updates=4, **LENGTH), batch))


@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.05, 0.1, 0.5, 1.0])
def test_shaping_is_the_derivative_of_p_over_p_plus_gamma(p: float) -> None:
    algorithm = build_algorithm("luffy", rollouts=N, **LENGTH)
    batch = Batch(
        loss_mask=torch.ones(1, 1, dtype=torch.bool),
        origin=torch.ones(1, 1, dtype=torch.int64),
        advantage=torch.ones(1, 1, dtype=torch.float64),
    )
    own = gradient(algorithm, batch, torch.tensor([[math.log(p)]], dtype=torch.float64))
    step = 1e-7
    shaped = [math.exp(x) / (math.exp(x) + 0.1) for x in (math.log(p) + step, math.log(p) - step)]
    assert -float(own) * WIDTH == pytest.approx((shaped[0] - shaped[1]) / (2 * step), rel=1e-6)


def test_how_much_is_learnt_from_each_is_logged() -> None:
    algorithm, batch = build_algorithm("hpt", rollouts=N, sft_coef=0.5, **LENGTH), groups(0, 2)
    metrics = policy_gradient_loss(algorithm, logps(batch), algorithm.prepare(batch)).metrics
    assert float(metrics["weight/demonstrations"]) == pytest.approx(0.5)
    lengths = batch.loss_mask[ROWS : ROWS + N].sum()
    assert float(metrics["weight/rollouts"]) == pytest.approx(0.5 * float(lengths) / (N * WIDTH))


def test_a_group_without_a_signal_is_made_up_for_in_the_numbers_that_are_trained() -> None:
    """GPG's factor is rows / rows of groups that vary: 16/12, which float32 does not have."""
    batch = groups(0, 1, 2, 3, demonstrated=False)
    varied = batch.replace(reward=torch.tensor([0.0] * 4 + [1.0, 0.0, 0.0, 0.0] * 3, dtype=torch.float64))
    advantage = build_algorithm("gpg").prepare(varied).advantage
    assert advantage is not None and float(advantage[4].max()) == pytest.approx(0.75 * 16 / 12, rel=1e-15)


def test_a_token_that_is_learnt_by_heart_is_unlearnt_by_a_bounded_weight() -> None:
    """p/(1 - p) of unlikelihood where p rounds to 1: what the others are pushed up by stays below 2."""
    [term] = build_algorithm("unlikelihood").terms
    batch = Batch(loss_mask=torch.ones(1, 2, dtype=torch.bool), origin=torch.full((1, 2), Origin.DEMO))
    weight = term.estimator.weights(View.of(batch, torch.zeros(1, 2), batch.loss_mask)).value
    assert float(weight.abs().max()) * torch.finfo(torch.float32).eps == pytest.approx(1.0, rel=1e-6)
