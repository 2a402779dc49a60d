"""Weights are constants to autograd, and of no wider scope than the algorithm says."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given
from torch import Tensor

from cases import Case, close, differentiate, map_fields, over, prepared, shapes
from posttrain import Algorithm, Batch, View, policy_gradient_loss
from posttrain.estimator.parts.average import divisor
from posttrain.estimator.parts.coefficient import coefficient_at


def of_token_scope(case: Case) -> bool:
    return case.algorithm.needs.scope == "token"


def weights(algorithm: Algorithm, batch: Batch, logp: Tensor) -> list[Tensor]:
    return [term.estimator.weights(View.of(batch, logp, term.select(batch))).value for term in algorithm.terms]


@over(each="part")
@given(shape=shapes)
def test_gradient_is_minus_weight_times_scale_over_count(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    counts = algorithm.counts(batch)
    _, gradient = differentiate(algorithm, batch, inputs)
    expected = {name: torch.zeros_like(value) for name, value in inputs.items()}
    for term, weight in zip(algorithm.terms, weights(algorithm, batch, inputs["logp"]), strict=True):
        coef = coefficient_at(term.coef, batch)
        scale = term.average.row_scale(term.select(batch))
        expected["logp"] -= coef * weight * scale / divisor(counts[term.name])
    for penalty in algorithm.penalties:
        select = penalty.select(batch)
        scale = penalty.average.row_scale(select) * select
        expected[penalty.quantity] += coefficient_at(penalty.coef, batch) * scale / divisor(counts[penalty.name])
    close(gradient, expected, rtol=1e-15)


@over(each="part")
@given(shape=shapes)
def test_nothing_but_the_likelihood_is_differentiated(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    # Fields that a careless caller left attached to a graph, with the current policy's among them.
    attached = map_fields(batch, lambda values: values.clone().requires_grad_())
    logp = inputs.pop("logp").clone().requires_grad_()
    policy_gradient_loss(algorithm, logp, attached, **inputs).loss.backward()
    close(logp.grad, differentiate(algorithm, batch, {"logp": logp, **inputs})[1]["logp"], rtol=1e-15)
    for field in dataclasses.fields(Batch):
        value = getattr(attached, field.name)
        assert not isinstance(value, Tensor) or value.grad is None, field.name


@over(each="part")
def test_parts_see_detached_values_only(case: Case) -> None:
    algorithm, batch, inputs = prepared(case)
    attached = map_fields(batch, lambda values: values.clone().requires_grad_())
    logp = inputs["logp"].clone().requires_grad_()
    for term in algorithm.terms:
        view = View.of(attached, logp, term.select(batch))
        seen = {field.name: getattr(view, field.name) for field in dataclasses.fields(View)}
        assert [name for name, value in seen.items() if isinstance(value, Tensor) and value.requires_grad] == []
        made = term.estimator.weights(view)
        assert not any(getattr(made, field.name).requires_grad for field in dataclasses.fields(made))


def weights_and_weights_after_others_moved(case: Case, shape: dict[str, int]) -> tuple[Tensor, Tensor]:
    """The weights of one token of each row, before and after everything known of all other tokens has changed."""
    algorithm, batch, inputs = prepared(case, **shape)
    random = torch.Generator().manual_seed(shape["seed"])
    stays = torch.zeros_like(batch.loss_mask)
    picked = (batch.loss_mask * torch.rand(batch.loss_mask.shape, generator=random)).argmax(-1)
    stays[torch.arange(len(stays)), picked] = True

    def move(values: Tensor) -> Tensor:
        return torch.where(stays, values, values + torch.randn(values.shape, generator=random))

    # The advantage is the row's, and known before the forward pass.
    moved = map_fields(batch, move, per_token=True).replace(advantage=batch.advantage)
    before, after = weights(algorithm, batch, inputs["logp"]), weights(algorithm, moved, move(inputs["logp"]))
    return torch.stack(before)[:, stays], torch.stack(after)[:, stays]


@over(lambda case: of_token_scope(case) and case.algorithm.terms, each="part")
@given(shape=shapes)
def test_a_token_scope_weight_does_not_depend_on_other_tokens(case: Case, shape: dict[str, int]) -> None:
    before, after = weights_and_weights_after_others_moved(case, shape)
    assert torch.equal(before, after)


# With one update for each collection GSPO's ratio is 1 by definition.
@over(lambda case: not of_token_scope(case) and str(case) != "gspo", each="part")
def test_a_sequence_scope_weight_depends_on_other_tokens(case: Case) -> None:
    """The control of the test above, and the scope is not declared wider than it is."""
    before, after = weights_and_weights_after_others_moved(case, {"seed": 0, "units": 9, "width": 5})
    assert not torch.equal(before, after)


@over(of_token_scope, each="part")
@given(shape=shapes)
def test_token_scope_works_on_flat_views(case: Case, shape: dict[str, int]) -> None:
    """What lets the output layer make log-prob, weight and gradient in one pass over chunks of tokens."""
    algorithm, batch, inputs = prepared(case, **shape)
    for term in algorithm.terms:
        view = View.of(batch, inputs["logp"], term.select(batch))
        fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(View)}
        flat = {name: value[view.select] for name, value in fields.items() if isinstance(value, Tensor)}
        expected, actual = (term.estimator.weights(seen) for seen in (view, dataclasses.replace(view, **flat)))
        for field in dataclasses.fields(expected):
            assert torch.equal(getattr(actual, field.name), getattr(expected, field.name)[view.select]), field.name
