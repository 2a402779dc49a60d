"""Credit of the turns of an episode: `Batch -> Batch`, in `prepare`.

    G_ik = sum over l >= k of gamma^(l-1) r_il,     A_ik = G_ik - mean of G_jk over row i's group,     G_jk = 0 past j's end

r_il is what turn l of row i is paid, and A_ik stands on all tokens of turn k. What another row is paid from its own turn k
on does not depend on what row i writes, so that the gradient of E[G_i1] stays exact, whatever number of turns rows have
(proved by enumeration, tests/parity/test_turns.py). gamma < 1 discounts from the beginning of the episode: the objective is
E[G_i1], and not each turn's own return.

Biased, and not here: the mean of those rows alone that came to turn k, each turn's own pay less its mean over the turns of
its number, and each turn as a row of its own. The form is ours, after RLOO's baseline (arXiv:2402.14740).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit import baseline as rows
from posttrain.estimator.parts.credit.grouping import centred, graded_rewards, group_std, group_sum, index_of

Credit = Callable[[Batch], Batch]
Baseline = Literal["none", "group", "others"]


def returns(
    batch: Batch, *, gamma: float, baseline: Baseline = "group", eps: float | None = None, varying: bool = False
) -> Batch:
    """The equation above.

    Args:
        batch: with `turn` and `token_reward`; what `reward` has beside these, the last turn is paid.
        gamma: of each turn after the first.
        baseline: the mean is of all rows of the group, or of the others alone; or there is none, and A = G.
        eps: A is divided by the group's unbiased std of G_i1, plus this; None: it is not.
        varying: rows of groups in which no turn has an advantage leave the loss mask.

    Raises:
        ValueError: the batch has no rewards, or no turns.
    """
    paid, graded = _to_go(batch, gamma)
    size, turns = paid.shape
    each = (index_of(batch.group)[:, None] * turns + torch.arange(turns, device=paid.device)).flatten()
    gaps = centred(paid.flatten(), each, graded.repeat_interleave(turns)).view(size, turns)
    advantage = paid if baseline == "none" else gaps
    if baseline == "others":
        number = group_sum(graded.to(paid.dtype), batch.group)[:, None]
        advantage = gaps * number / (number - 1).clamp(min=1)
    if eps is not None:
        advantage = gaps / (group_std(gaps[:, 0], batch.group, graded) + eps)[:, None]
    assert batch.turn is not None
    own = batch.turn > 0
    spread = torch.where(own, advantage.gather(1, (batch.turn.long() - 1).clamp(min=0)), 0.0)
    kept = batch.loss_mask
    if varying:
        kept = kept & (group_sum(gaps.abs().sum(-1) * graded, batch.group) > 0)[:, None]
    return batch.replace(advantage=spread, loss_mask=kept)


def _to_go(batch: Batch, gamma: float) -> tuple[Float[Tensor, "B K"], Tensor]:
    """G of each row from each turn on, K turns of the longest row; and which rows are graded.

    Raises:
        ValueError: as `returns`.
    """
    if batch.turn is None or batch.token_reward is None:
        raise ValueError("Turns are paid one by one: set Batch.turn and Batch.token_reward (Needs: turns=True).")
    rewards, graded = graded_rewards(batch)
    last = batch.turn.long().amax(-1).clamp(min=1)
    number = torch.arange(1, int(last.max()) + 1, device=rewards.device)
    paid = torch.zeros(len(rewards), len(number), dtype=rewards.dtype, device=rewards.device)
    before = (batch.turn > 0) & (batch.turn < last[:, None])
    paid.scatter_add_(1, (batch.turn.long() - 1).clamp(min=0), torch.where(before, batch.token_reward.to(rewards.dtype), 0.0))
    paid = torch.where(graded[:, None], paid, 0.0)
    paid = torch.where(number == last[:, None], (rewards - paid.sum(-1))[:, None], paid)
    paid = paid * gamma ** (number - 1).to(rewards.dtype)
    whole = rewards if gamma == 1 else paid.sum(-1)  # equal rewards stay equal, in whatever turns they were paid
    earlier = torch.nn.functional.pad(paid.cumsum(-1)[:, :-1], (1, 0))
    return torch.where(number <= last[:, None], whole[:, None] - earlier, 0.0), graded


def by_turns(credit: Credit, gamma: float) -> Credit | None:
    """The credit of turns that stands for one of rows: the same where each row is one turn; None: there is none.

    Those without a baseline, of a group's mean, of the other rows' mean, and of the group's std have one, alone or among
    what is done in turn.
    """
    function, options = (credit.func, dict(credit.keywords)) if isinstance(credit, partial) else (credit, dict[str, Any]())
    if function is rows.in_turn:
        steps = list[Credit](options["steps"])
        for place, step in enumerate(steps):
            if (turned := by_turns(step, gamma)) is not None:
                return partial(rows.in_turn, steps=(*steps[:place], turned, *steps[place + 1 :]))
        return None
    if function is rows.leave_one_out:
        return partial(returns, gamma=gamma, baseline="others")
    if function is rows.reward:
        return partial(returns, gamma=gamma, baseline="none")
    if function is rows.group_mean and not options:
        return partial(returns, gamma=gamma)
    if function in (rows.group_normalised, rows.varying_groups_normalised):
        eps = options.get("eps", rows.STD_EPS)
        return partial(returns, gamma=gamma, eps=eps, varying=function is rows.varying_groups_normalised)
    return None
