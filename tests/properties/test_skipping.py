"""Rows without signal are left out of the forward pass: the gradient is the same with them and without."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from cases import CASES, Case, close, differentiate, on_policy, over, prepared, shapes


@over(each="part")
@settings(max_examples=15, deadline=None)
@given(shape=shapes)
def test_skipping_rows_changes_neither_gradient_nor_loss(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    whole, gradients = differentiate(algorithm, batch, inputs)
    signal = algorithm.has_signal(batch)
    if (unit := case.algorithm.needs.unit) > 1:
        signal = signal.reshape(-1, unit).any(-1).repeat_interleave(unit)  # it stays whole
    kept = signal.nonzero()[:, 0]
    if not len(kept):
        assert all(not gradient.any() for gradient in gradients.values())
        return
    part = {name: value[kept] for name, value in inputs.items()}
    output, of_kept = differentiate(algorithm, batch.take(kept), part, counts=algorithm.counts(batch))
    torch.testing.assert_close(output.loss, whole.loss, rtol=1e-12, atol=1e-14)
    for name, gradient in gradients.items():
        assert not gradient[~signal].any()
        close(of_kept[name], gradient[kept])


def test_groups_of_equal_rewards_are_skipped_where_nothing_else_moves_them() -> None:
    skipping = {
        str(case) for case in CASES if on_policy(case) and not prepared(case)[0].has_signal(prepared(case)[1])[-4:].any()
    }
    assert {"grpo-no_kl", "dr_grpo", "dapo", "gspo", "cispo", "gpg", "sapo-several", "rloo-no_kl"} <= skipping
    assert not {"grpo", "grpo-entropy", "grpo-k2", "reinforce", "cispo-several"} & skipping
