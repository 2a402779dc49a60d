"""Returns of turns: the expected gradient over all groups of a task small enough to enumerate, against the derivative of the
expected discounted reward by autograd; and the form as plain loops. Float64.

Up to three turns of one token, of three symbols, of which 0 ends the episode: 15 episodes, and all 3,375 groups of three.
What a turn is paid depends on all that was said until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain import Batch, Origin, build_algorithm, policy_gradient_loss
from posttrain.algorithms import ALGORITHMS, example_values
from posttrain.estimator.parts.credit import baseline as of_rows
from posttrain.estimator.parts.credit.turns import by_turns, returns

SYMBOLS, TURNS, N = 3, 3, 3
STATES: list[tuple[int, ...]] = [said for length in range(TURNS) for said in product((1, 2), repeat=length)]
EPISODES = sorted({y[: y.index(0) + 1] if 0 in y else y for y in product(range(SYMBOLS), repeat=TURNS)})
RANDOM = torch.Generator().manual_seed(7)
TABLE = torch.randn(len(STATES), SYMBOLS, generator=RANDOM, dtype=torch.float64).requires_grad_()
PAID = {y[:k]: float(torch.randint(-2, 3, (1,), generator=RANDOM)) for y in EPISODES for k in range(1, len(y) + 1)}
LENGTHS = torch.tensor([len(y) for y in EPISODES])
OWN = torch.arange(TURNS) < LENGTHS[:, None]
PAY = torch.tensor([[PAID[y[: k + 1]] if k < len(y) else 0.0 for k in range(TURNS)] for y in EPISODES], dtype=torch.float64)
GROUPS = torch.tensor(list(product(range(len(EPISODES)), repeat=N)))


def logp() -> Tensor:
    rows = TABLE.log_softmax(-1)
    zero = TABLE.new_zeros(())
    return torch.stack(
        [torch.stack([rows[STATES.index(y[:k]), y[k]] if k < len(y) else zero for k in range(TURNS)]) for y in EPISODES]
    )


def expected(gamma: float) -> Tensor:
    """The derivative of E[sum of gamma^(k-1) r_k]."""
    value = (logp().sum(-1).exp() * (PAY * gamma ** torch.arange(TURNS).double()).sum(-1)).sum()
    return torch.autograd.grad(value, TABLE)[0]


def every_group() -> Batch:
    """All groups, one after the other."""
    rows = GROUPS.flatten()
    return Batch(
        loss_mask=OWN[rows],
        group=torch.arange(len(GROUPS)).repeat_interleave(N),
        reward=PAY[rows].sum(-1),
        turn=torch.where(OWN, torch.arange(1, TURNS + 1), 0)[rows],
        token_reward=PAY[rows],
    )


def ascent(advantage: Tensor) -> Tensor:
    """Expected over all groups: the mean over a group's rows of A · grad log pi."""
    values, rows = logp(), GROUPS.flatten()
    p = values.sum(-1).exp().detach()[GROUPS].prod(-1).repeat_interleave(N)
    return torch.autograd.grad((p[:, None] * advantage.detach() * values[rows]).sum() / N, TABLE)[0]


def estimated(algorithm: Any, gamma: float) -> Tensor:
    """The same by the algorithm's own loss: each group's part weighs as much as it is likely."""
    credit = by_turns(algorithm.credit, gamma)
    assert credit is not None
    batch = dataclasses.replace(algorithm, credit=credit).prepare(every_group())
    values, rows = logp(), GROUPS.flatten()
    p = values.sum(-1).exp().detach()[GROUPS].prod(-1).repeat_interleave(N) * len(GROUPS)
    assert batch.advantage is not None
    output = policy_gradient_loss(algorithm, values[rows], batch.replace(advantage=batch.advantage * p[:, None]))
    return -torch.autograd.grad(output.loss, TABLE)[0]


@pytest.mark.parametrize("gamma", [1.0, 0.6])
@pytest.mark.parametrize(
    ("name", "options", "constant"),
    [
        ("rloo", {"kl_coef": 0.0}, 1.0),
        ("reinforce", {}, 1.0),
        ("reinforce", {"baseline": "group_mean"}, (N - 1) / N),
        ("dr_grpo", {"max_tokens": 7}, (N - 1) / N / 7),
    ],
)
def test_returns_follow_the_derivative_of_the_expected_reward(
    name: str, options: dict[str, Any], constant: float, gamma: float
) -> None:
    ours, exact = estimated(build_algorithm(name, rollouts=N, **options), gamma), constant * expected(gamma)
    assert exact.abs().max() > 1e-3
    assert (ours - exact).abs().max() < 1e-12


def biased(of: Callable[[Tensor, Tensor], Tensor]) -> float:
    """How far a form is off after the best rescaling, by the largest entry of the gradient."""
    rows = GROUPS.flatten()
    found, exact = ascent(of(PAY[rows], OWN[rows])), expected(1.0)
    scaled = found * (found * exact).sum() / (found * found).sum()
    return float((scaled - exact).abs().max() / exact.abs().max())


def mean_of_those_that_came(values: Tensor, own: Tensor) -> Tensor:
    by_group, here = values.view(-1, N, TURNS), own.view(-1, N, TURNS)
    return (torch.where(here, by_group, 0.0).sum(1) / here.sum(1).clamp(min=1)).repeat_interleave(N, 0)


def to_go(pay: Tensor) -> Tensor:
    return pay.flip(-1).cumsum(-1).flip(-1)


def reached(pay: Tensor, own: Tensor) -> Tensor:
    return torch.where(own, to_go(pay) - mean_of_those_that_came(to_go(pay), own), 0.0)


def turn_index(pay: Tensor, own: Tensor) -> Tensor:
    return torch.where(own, to_go(torch.where(own, pay - mean_of_those_that_came(pay, own), 0.0)), 0.0)


def turn_rows(pay: Tensor, own: Tensor) -> Tensor:
    total = pay.sum(-1, keepdim=True).expand(-1, TURNS)
    everywhere = torch.where(own, total, 0.0).view(-1, N * TURNS).sum(-1) / own.view(-1, N * TURNS).sum(-1)
    return torch.where(own, total - everywhere.repeat_interleave(N)[:, None], 0.0)


@pytest.mark.parametrize("form", [reached, turn_index, turn_rows])
def test_what_is_refused_is_biased(form: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert biased(form) > 1e-3


def test_the_measure_of_bias_finds_none_in_what_is_offered() -> None:
    def ours(pay: Tensor, own: Tensor) -> Tensor:
        advantage = returns(every_group(), gamma=1.0, baseline="others").advantage
        assert advantage is not None
        return advantage

    assert biased(ours) < 1e-12


def episodes(seed: int, groups: int = 4, rows: int = 5, turns: int = 4) -> Batch:
    """Of unequal numbers of turns, each of up to three tokens, with others' tokens between them; some rows not graded."""
    draw = torch.Generator().manual_seed(seed)

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(0, limit, shape or (1,), generator=draw)

    turn, paid = list[list[int]](), list[list[float]]()
    for _ in range(groups * rows):
        numbers, pay = list[int](), list[float]()
        for k in range(1, 2 + int(below(turns))):
            own, glue = 1 + int(below(3)), int(below(3))
            numbers += [k] * own + [0] * glue
            pay += [0.0] * (own - 1) + [float(below(5)) - 2] + [0.0] * glue
        turn.append(numbers)
        paid.append(pay)
    width = max(map(len, turn))
    numbers = torch.tensor([row + [0] * (width - len(row)) for row in turn])
    given = torch.tensor([row + [0.0] * (width - len(row)) for row in paid], dtype=torch.float64)
    return Batch(
        loss_mask=numbers > 0,
        origin=torch.where(numbers > 0, Origin.ROLLOUT, Origin.OTHER),
        group=torch.arange(groups).repeat_interleave(rows),
        reward=given.sum(-1) + below(3, groups * rows),
        reward_mask=below(5, groups * rows) > 0,
        turn=numbers,
        token_reward=given,
    )


def naive(batch: Batch, gamma: float, *, baseline: str = "group", eps: float | None = None) -> Tensor:
    assert batch.turn is not None and batch.token_reward is not None and batch.reward is not None
    assert batch.reward_mask is not None
    rows = range(len(batch.turn))
    last = [max(max(row), 1) for row in batch.turn.tolist()]

    def later(i: int, k: int) -> float:
        """What row i is paid from turn k on."""
        assert batch.turn is not None and batch.token_reward is not None and batch.reward is not None
        pay = [float(batch.token_reward[i][batch.turn[i] == turn].sum()) for turn in range(1, last[i] + 1)]
        pay[-1] = float(batch.reward[i]) - sum(pay[:-1])
        return sum(one * gamma**turn for turn, one in enumerate(pay) if turn + 1 >= k)

    result = torch.zeros(batch.turn.shape, dtype=torch.float64)
    for i in rows:
        kin = [j for j in rows if batch.group[j] == batch.group[i] and batch.reward_mask[j]]
        for t, k in enumerate(batch.turn[i].tolist()):
            against = [j for j in kin if j != i] if baseline == "others" else [] if baseline == "none" else kin
            if not k or not batch.reward_mask[i] or not (against or baseline == "none"):
                continue
            value = later(i, k) - sum(later(j, k) for j in against) / max(len(against), 1)
            if eps is not None:
                first = torch.tensor([later(j, 1) for j in kin], dtype=torch.float64)
                value /= (float(first.std()) if len(kin) > 1 else 0.0) + eps
            result[i, t] = value
    return result


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("options", [{}, {"baseline": "others"}, {"baseline": "none"}, {"eps": 1e-4}], ids=str)
def test_returns_are_the_plain_loops(gamma: float, options: dict[str, Any]) -> None:
    for seed in range(5):
        batch = episodes(seed)
        credited = returns(batch, gamma=gamma, **options)
        assert credited.advantage is not None and batch.reward_mask is not None
        wanted = naive(batch, gamma, **options)
        graded = batch.reward_mask[:, None]
        assert (torch.where(graded, credited.advantage, 0.0) - wanted).abs().max() < 1e-12
        assert wanted.abs().max() > 0.1


def test_no_order_of_rows_matters() -> None:
    batch = episodes(3)
    order = torch.randperm(len(batch.turn), generator=torch.Generator().manual_seed(1))  # pyright: ignore[reportArgumentType]
    straight, mixed = returns(batch, gamma=0.9).advantage, returns(batch.take(order), gamma=0.9).advantage
    assert straight is not None and mixed is not None
    assert (straight[order] - mixed).abs().max() < 1e-14


@pytest.mark.parametrize(
    "credit",
    [of_rows.reward, of_rows.leave_one_out, of_rows.group_mean, of_rows.group_normalised, of_rows.varying_groups_normalised],
)
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_one_turn_has_the_credit_of_its_row(credit: Callable[[Batch], Batch], gamma: float) -> None:
    """To the last bit, whatever the turn itself was paid; a group whose rewards are equal among them."""
    batch = episodes(5, turns=1)
    assert batch.turn is not None and batch.reward is not None
    batch = batch.replace(reward=torch.where(batch.group == 1, 1.0, batch.reward))
    turned = by_turns(credit, gamma)
    assert turned is not None
    ours, rows = turned(batch), credit(batch)
    assert ours.advantage is not None and rows.advantage is not None
    own = batch.turn > 0  # pyright: ignore[reportOptionalOperand]
    assert torch.equal(ours.advantage[own], rows.advantage[own])
    assert torch.equal(ours.loss_mask, rows.loss_mask)


def test_each_algorithm_says_whether_its_credit_has_turns() -> None:
    for kind, value in zip(ALGORITHMS, example_values(), strict=True):
        if not (kind.beside_rollouts or kind.has_teacher or kind.takes_demonstrations) and value.learns_from_rewards:
            assert (by_turns(value.credit, 1.0) is None) == kind.whole_rows or value.needs.pairs is not None, value.name


def test_a_group_stays_where_its_turns_differ_though_its_rewards_do_not() -> None:
    batch = Batch(
        loss_mask=torch.ones(2, 2, dtype=torch.bool),
        group=torch.zeros(2, dtype=torch.int64),
        reward=torch.ones(2, dtype=torch.float64),
        turn=torch.tensor([[1, 2], [1, 2]]),
        token_reward=torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
    )
    credited = returns(batch, gamma=1.0, eps=1e-4, varying=True)
    assert credited.advantage is not None
    assert credited.loss_mask.all()
    assert credited.advantage[:, 0].abs().max() == 0 and credited.advantage[1, 1] > 0 > credited.advantage[0, 1]
