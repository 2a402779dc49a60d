"""Shares of metrics, added up over micro-batches and ranks; and how far the sampler is from the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from posttrain.errors import EngineError
from posttrain.estimator.batch import MAX_LOG_RATIO, Batch, Origin

MAXIMUM = "/max"  # metrics of these names take the maximum; all others add up


class Shares:
    """The metrics of one step, or one evaluation: shares in, floats out, with one transfer from the device."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def add(self, shares: Mapping[str, Tensor]) -> None:
        """One micro-batch's."""
        for name, share in shares.items():
            share = share.detach().double()
            if name not in self._values:
                self._values[name] = share
            elif name.endswith(MAXIMUM):
                self._values[name] = torch.maximum(self._values[name], share)
            else:
                self._values[name] = self._values[name] + share

    def total(self, accelerator: Any) -> dict[str, float]:
        """Over all ranks, as floats."""
        return self.total_with(accelerator)[0]

    def total_with(self, accelerator: Any, *others: Tensor) -> tuple[dict[str, float], list[float]]:
        """The same, and scalars that are alike on all ranks already."""
        names = sorted(self._values)
        stacked = torch.stack([self._values[name] for name in names]) if names else None
        if stacked is not None and accelerator.num_processes > 1:
            gathered = accelerator.gather(stacked[None])
            largest = [i for i, name in enumerate(names) if name.endswith(MAXIMUM)]
            stacked = gathered.sum(0)
            for i in largest:
                stacked[i] = gathered[:, i].amax()
        values = [one.double().view(1) for one in others] + ([] if stacked is None else [stacked])
        read = torch.cat(values).tolist() if values else []
        return dict(zip(names, read[len(others) :], strict=True)), read[: len(others)]


def with_intervals(metrics: dict[str, float], pairs: int) -> dict[str, float]:
    """Adds the 95 % Wilson interval beside every accuracy, a proportion of `pairs`."""
    for name in [name for name in metrics if name.endswith("accuracy")]:
        interval = stats.binomtest(round(metrics[name] * pairs), pairs).proportion_ci(0.95, "wilson")
        metrics[f"{name}/low"], metrics[f"{name}/high"] = float(interval.low), float(interval.high)
    return metrics


_WEIGHT, _SQUARE = "weight of rollout tokens", "squared weight of rollout tokens"


def gap_shares(batch: Batch, own: Float[Tensor, "B T"], tokens: int) -> dict[str, Float[Tensor, ""]]:
    """A micro-batch's shares, of `tokens` rollout tokens in the whole step.

    With w = p_trainer / p_sampler of a token: mean of w - 1 - log w, an estimate of KL(sampler || trainer) (k3, Schulman
    2020); the largest |log w|; and what the effective sample size is made of.
    """
    assert batch.behavior_logp is not None
    select = batch.loss_mask & (batch.origin == Origin.ROLLOUT)
    gap = torch.where(select, own.detach() - batch.behavior_logp.to(own.dtype), 0.0)
    weight = gap.clamp(max=MAX_LOG_RATIO).exp()
    return {
        "kl/sampler_trainer": (weight - 1 - gap).sum() / tokens,
        "logp_diff/max": gap.abs().max(),
        _WEIGHT: torch.where(select, weight, 0.0).sum(),
        _SQUARE: torch.where(select, weight**2, 0.0).sum(),
    }


def check_gap(metrics: Mapping[str, float], bound: float, step: int) -> None:
    """That the largest gap of a step is within a bound, in nats.

    Raises:
        EngineError: it is not.
    """
    if (gap := metrics.get("logp_diff/max", 0.0)) > bound:
        raise EngineError(
            f"Step {step}: a token's log-prob is {gap:.3g} nats off what it was sampled with, over environment.logp_bound "
            f"{bound:g}: engine and trainer do not read the same tokens, or what others wrote carries loss. No step was made "
            "with it."
        )


def gap_metrics(total: Mapping[str, float], tokens: int) -> dict[str, float]:
    """The step's metrics with `rollout/effective_sample_size`, (sum w)² / (n · sum w²), a share of the step's tokens."""
    metrics = dict(total)
    weight, square = metrics.pop(_WEIGHT, 0.0), metrics.pop(_SQUARE, 0.0)
    return {**metrics, "rollout/effective_sample_size": weight**2 / (tokens * square)} if square else metrics
