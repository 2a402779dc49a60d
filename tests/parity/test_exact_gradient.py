"""The expected gradient of every on-policy algorithm, summed over all groups of a task small enough to enumerate, against the
derivative of the expected reward, taken by autograd through the probabilities themselves. Float64.

Three symbols and three tokens: 27 completions, or 15 where the first symbol ends one, and all 729 or 225 groups of two.
With y_i ~ pi and its group held fixed, the expected gradient of a row weight W_i(group) is

    d/d theta  sum over groups of  sum_i pi_theta(y_i) · prod over j != i of pi(y_j) · W_i(group)

For REINFORCE, RLOO and Dr. GRPO that is the derivative of E[R] itself, times a constant that is known.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain import Batch, build_algorithm, policy_gradient_loss

SYMBOLS, TOKENS, N = 3, 3, 2
STATES = [prefix for length in range(TOKENS) for prefix in product(range(SYMBOLS), repeat=length)]
Completions = list[tuple[int, ...]]


def completions(ends: bool) -> Completions:
    """All of them; symbol 0 ends one where `ends`."""
    every = product(range(SYMBOLS), repeat=TOKENS)
    cut = [y[: y.index(0) + 1] if ends and 0 in y else y for y in every]
    return list(dict.fromkeys(cut))


class Task:
    """A table of logits, one row for each prefix, another for the reference, and a reward for each completion."""

    def __init__(self, ends: bool) -> None:
        rng = torch.Generator().manual_seed(3)
        self.table = torch.randn(len(STATES), SYMBOLS, generator=rng, dtype=torch.float64).requires_grad_()
        self.reference = torch.randn(len(STATES), SYMBOLS, generator=rng, dtype=torch.float64)
        self.all = completions(ends)
        self.reward = torch.randint(0, 3, (len(self.all),), generator=rng).double()
        self.mask = torch.tensor([[t < len(y) for t in range(TOKENS)] for y in self.all])

    def logp(self, table: Tensor) -> Tensor:
        """[completions, TOKENS], 0 after an end."""
        rows = table.log_softmax(-1)
        picked = [
            [rows[STATES.index(y[:t]), y[t]] if t < len(y) else table.new_zeros(()) for t in range(TOKENS)] for y in self.all
        ]
        return torch.stack([torch.stack(row) for row in picked])

    def gradient(self, value: Tensor) -> Tensor:
        [gradient] = torch.autograd.grad(value, self.table, retain_graph=True)
        return gradient

    def estimated(self, algorithm: Any, *, ref: bool = False) -> Tensor:
        """The ascent direction -dL, expected over all groups of two."""
        logp, ref_logp = self.logp(self.table), self.logp(self.reference)
        p = logp.sum(-1).exp().detach()
        total = torch.zeros((), dtype=torch.float64)
        for rows in map(list, combinations_with_replacement(range(len(self.all)), N)):
            times = 1 if rows[0] == rows[1] else 2  # a group in the other order has the same loss
            batch = Batch(
                loss_mask=self.mask[rows],
                group=torch.zeros(N, dtype=torch.int64),
                reward=self.reward[rows],
                old_logp=logp[rows].detach() if ref else None,
                ref_logp=ref_logp[rows] if ref else None,
                teacher_logp=ref_logp[rows] if algorithm.needs.teacher == "logp" else None,
            )
            output = policy_gradient_loss(algorithm, logp[rows], algorithm.prepare(batch))
            total = total + times * p[rows].prod() * output.loss
        return -self.gradient(total)

    def exact(self, weight: Any) -> Tensor:
        """The derivative above; `weight(rewards, lengths)` gives W of a group's rows."""
        p = self.logp(self.table).sum(-1).exp()
        total = torch.zeros((), dtype=torch.float64)
        for pair in product(range(len(self.all)), repeat=N):
            weights = weight([float(self.reward[i]) for i in pair], [len(self.all[i]) for i in pair])
            for place, i in enumerate(pair):
                others = [p[j].detach() for k, j in enumerate(pair) if k != place]
                total = total + p[i] * torch.stack(others).prod() * weights[place]
        return self.gradient(total)

    def visits(self) -> Tensor:
        """How often the policy comes through each state, without gradient."""
        p = self.logp(self.table).sum(-1).exp().detach()
        return torch.stack([p[[y[: len(state)] == state for y in self.all]].sum() for state in STATES])

    def expected_reward(self) -> Tensor:
        return self.gradient((self.logp(self.table).sum(-1).exp() * self.reward).sum())


@pytest.fixture(scope="module", params=[False, True], ids=["fixed_length", "ends"])
def task(request: pytest.FixtureRequest) -> Task:
    return Task(request.param)


def close(ours: Tensor, exact: Tensor) -> None:
    assert exact.abs().max() > 1e-3
    assert (ours - exact).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "constant"),
    [
        ("reinforce", {}, 1.0),
        ("reinforce", {"baseline": "group_mean"}, (N - 1) / N),
        ("rloo", {"kl_coef": 0.0}, 1.0),
        ("dr_grpo", {"max_tokens": 7}, (N - 1) / N / 7),
    ],
)
def test_unbiased_forms_follow_the_derivative_of_the_expected_reward(
    task: Task, name: str, options: dict[str, Any], constant: float
) -> None:
    close(task.estimated(build_algorithm(name, rollouts=N, **options)), constant * task.expected_reward())


def test_the_lead_of_the_best_follows_the_derivative_of_the_best_reward_of_a_group() -> None:
    """E[max(R_1, R_2)], by autograd through the probabilities of both."""
    task = Task(ends=False)
    p = task.logp(task.table).sum(-1).exp()
    best = torch.maximum(task.reward[:, None], task.reward[None])
    exact = task.gradient((p[:, None] * p[None] * best).sum())
    close(task.estimated(build_algorithm("best_of_group", rollouts=N, std=False)), exact / (N * TOKENS))


def normalised(rewards: list[float]) -> list[float]:
    mean = sum(rewards) / N
    std = (sum((r - mean) ** 2 for r in rewards) / (N - 1)) ** 0.5
    return [(r - mean) / (std + 1e-4) for r in rewards]


def by_row(rewards: list[float], lengths: list[int]) -> list[float]:
    return [a / length / N for a, length in zip(normalised(rewards), lengths, strict=True)]


def by_token(rewards: list[float], lengths: list[int]) -> list[float]:
    return [a / sum(lengths) for a in normalised(rewards)]


@pytest.mark.parametrize(("name", "weight"), [("grpo", by_row), ("gspo", by_row), ("dapo", by_token), ("cispo", by_token)])
def test_normalised_forms_follow_the_derivative_of_the_expected_advantage(task: Task, name: str, weight: Any) -> None:
    close(task.estimated(build_algorithm(name, rollouts=N, kl_coef=0.0)), task.exact(weight))


def test_a_kl_in_the_reward_is_the_derivative_of_the_kl_of_whole_completions(task: Task) -> None:
    ours = task.estimated(build_algorithm("rloo", rollouts=N, kl_coef=0.3), ref=True)
    logp, ref_logp = task.logp(task.table).sum(-1), task.logp(task.reference).sum(-1)
    kl = task.gradient((logp.exp() * (logp - ref_logp)).sum())
    close(ours, task.expected_reward() - 0.3 * kl)


@pytest.mark.parametrize(("estimate", "reverse"), [("k2", False), ("k3", True)])
def test_a_kl_in_the_loss_is_the_derivative_of_each_states_kl(estimate: str, reverse: bool) -> None:
    """In expectation k2 descends KL(pi || ref) and k3 KL(ref || pi), where the policy goes; k1's gradient would be zero."""
    task = Task(ends=False)
    task.reward = torch.zeros(len(task.all), dtype=torch.float64)
    ours = task.estimated(build_algorithm("grpo", rollouts=N, kl_coef=0.5, kl=estimate), ref=True)
    policy, reference = task.table.log_softmax(-1), task.reference.log_softmax(-1)
    one, other = (reference, policy) if reverse else (policy, reference)
    per_state, visits = (one.exp() * (one - other)).sum(-1), task.visits()
    close(ours, -0.5 * task.gradient((visits * per_state).sum()) / TOKENS)
    sampled = (policy.detach().exp() * policy).sum(-1)  # k1: the sampled logp - ref_logp, without the sampling
    assert task.gradient((visits * sampled).sum()).abs().max() < 1e-15


def test_distillation_on_sampled_tokens_is_the_derivative_of_each_states_whole_kl_to_the_teacher() -> None:
    """KL(pi || q) at every state, where the policy goes, over the tokens of both rows; a bound that acts is seen."""
    task = Task(ends=False)
    policy, teacher = task.table.log_softmax(-1), task.reference.log_softmax(-1)
    whole = (policy.exp() * (policy - teacher)).sum(-1)
    exact = -task.gradient((task.visits() * whole).sum()) / TOKENS
    close(task.estimated(build_algorithm("opd", rollouts=N)), exact)
    assert (task.estimated(build_algorithm("opd", rollouts=N, kl_max=0.5)) - exact).abs().max() > 1e-3
