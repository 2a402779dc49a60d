"""Completions under each of several principles: by how much they are pulled, and where that is another loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cases import close, differentiate, sample, shapes
from posttrain import Batch, build_algorithm, policy_gradient_loss
from posttrain.estimator import View


def pulls(means: Tensor, lengths: tuple[int, ...], **options: int) -> Tensor:
    """A of a token of each row of one unit, [K, K], times its completion's tokens: whose mean log-probs are `means`."""
    number = len(means)
    n = torch.tensor(lengths).repeat(number)
    mask = torch.arange(max(lengths)) < n[:, None]
    logp = means.double().flatten()[:, None].expand(mask.shape)
    term = build_algorithm("sami", principles=number, **options).terms[0]
    value = term.estimator.weights(View.of(Batch(loss_mask=mask, unit=number**2), logp, mask)).value
    assert torch.equal(value, value[:, :1] * mask)  # all tokens of a row alike
    return value[:, 0].view(number, number) * n.view(number, number)


def test_where_nothing_is_told_apart_the_diagonal_is_pulled_up_and_all_else_down() -> None:
    """([i = j] - 1/K) / K, whatever the lengths."""
    torch.testing.assert_close(pulls(torch.zeros(2, 2), (3, 1)), torch.tensor([[1, -1], [-1, 1]]).double() / 4)
    torch.testing.assert_close(pulls(torch.zeros(3, 3), (2, 1, 4)), (torch.eye(3).double() - 1 / 3) / 3)


def test_a_completion_that_is_likely_under_both_is_pulled_by_what_tells_them_apart() -> None:
    means = torch.tensor([[0.0, -3.0], [-1.0, -2.5]])
    rows, columns = means.double().softmax(1), means.double().softmax(0)
    torch.testing.assert_close(pulls(means, (1, 2)), (torch.eye(2).double() - (rows + columns) / 2) / 2)
    torch.testing.assert_close(pulls(means - 7, (1, 2)), pulls(means, (1, 2)), rtol=1e-12, atol=0)
    assert pulls(means, (1, 2)).sum().abs() < 1e-15


def accuracy(means: Tensor) -> float:
    number = len(means)
    batch = Batch(loss_mask=torch.ones(number**2, 1, dtype=torch.bool), unit=number**2)
    logp = means.double().view(-1, 1).requires_grad_()
    metrics = policy_gradient_loss(build_algorithm("sami", principles=number), logp, batch).metrics
    return float(metrics["principles/accuracy"])


def test_the_accuracy_is_of_both_choices_and_ties_are_one_half() -> None:
    assert accuracy(torch.zeros(2, 2)) == 0.5
    assert accuracy(torch.tensor([[0.0, -1], [-1, 0]])) == 1 and accuracy(torch.tensor([[-1.0, 0], [0, -1]])) == 0
    assert accuracy(torch.tensor([[0.0, -1], [0, 0]])) == 0.5 * (1 + 0.5) / 2 + 0.5 * (0.5 + 1) / 2
    assert accuracy(torch.tensor([[0.0, -2, 1], [-2, -1.5, -3], [-1, -3, 2]])) == pytest.approx(5 / 6)


@given(shape=shapes)
def test_two_principles_are_simpo_of_four_pairs(shape: dict[str, int]) -> None:
    """Of one principle both completions, and of one completion both principles: beta 1, and no margin."""
    drawn = sample(build_algorithm("sami"), **shape)
    logp = drawn.inputs()["logp"]
    own, gradient = differentiate(drawn.algorithm, drawn.batch, {"logp": logp})
    pairs = (4 * torch.arange(len(logp) // 4)[:, None] + torch.tensor([0, 1, 3, 2, 0, 2, 3, 1])).flatten()
    leaf = logp.detach().clone().requires_grad_()
    batch = Batch(loss_mask=drawn.batch.loss_mask[pairs], chosen=torch.arange(len(pairs)) % 2 == 0)
    simpo = policy_gradient_loss(build_algorithm("simpo", beta=1.0, gamma=0.0), leaf[pairs], batch)
    close(gradient["logp"], torch.autograd.grad(simpo.loss, leaf)[0])
    close(own.metrics["objective/sami"], simpo.metrics["objective/simpo"])


def test_a_batch_of_other_units_is_refused() -> None:
    mask = torch.ones(9, 2, dtype=torch.bool)
    for unit in (1, 9):
        with pytest.raises(ValueError, match=f"sami trains on units of 4 rows: the batch has units of {unit}"):
            policy_gradient_loss(build_algorithm("sami"), torch.zeros(9, 2), Batch(loss_mask=mask, unit=unit))
    with pytest.raises(ValueError, match="cut a unit of 9 rows"):
        Batch(loss_mask=mask, unit=9).take([0, 1, 2])
