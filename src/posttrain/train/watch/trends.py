"""Rules over the course of a metric: against what it was before, or at the start."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import fmean, median

Metrics = Mapping[str, float]

SPIKE_STEPS, SPIKE_DEVIATIONS, SPIKE_NATS = 50, 10.0, 1.0  # the loss against the median of so many steps before
FEW = 8  # steps, of which no deviation can be told; a loss must then rise to three times their median, and by 5 nats
TIMES = 5  # collections at the start that are compared with the latest ones
GAP = 0.05  # nats a token between sampler and trainer, at any time
GAP_GROWN, GROWTH = 0.005, 10.0  # and once it is so many times what it was at the start
COLLAPSED, NATS_LEFT = 0.1, 0.1  # entropy as a share of that at the start, and in nats a token


class LossSpike:
    """The loss on demonstrations or pairs is far above the steps before."""

    name = "loss-spike"

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=SPIKE_STEPS)

    def look(self, step: int, metrics: Metrics, *, last: bool) -> str | None:
        """See `rules.Rule`."""
        if "loss" not in metrics or metrics.get("train/demonstrated") != 1 or metrics.get("train/left_out"):
            return None
        loss, before = metrics["loss"], list(self._before)
        self._before.append(loss)
        if not before:
            return None
        usual = median(before)
        spread = 1.4826 * median(abs(one - usual) for one in before)
        margin = max(5.0, 2 * abs(usual)) if len(before) < FEW else max(SPIKE_DEVIATIONS * spread, SPIKE_NATS, abs(usual))
        if loss - usual <= margin:
            return None
        return (
            f"The loss of step {step} is {loss:.4g}; the median of the {len(before)} steps before is {usual:.4g}. A lower "
            "learning_rate or max_grad_norm, a longer warm-up, or a look at the step's rows is what helps."
        )


class GapGrows:
    """The sampler's log-probs drift away from the trainer's, of which rollouts that were stored say nothing."""

    name = "sampler-gap"

    def __init__(self) -> None:
        self._start: list[float] = []
        self._over = 0

    def look(self, step: int, metrics: Metrics, *, last: bool) -> str | None:
        """See `rules.Rule`."""
        gap = metrics.get("kl/sampler_trainer")
        if gap is None or "rollout/length" not in metrics or metrics.get("rollout/replayed"):
            return None
        if len(self._start) < TIMES:
            self._start.append(gap)
        grown = len(self._start) == TIMES and gap > max(GAP_GROWN, GROWTH * median(self._start))
        self._over = self._over + 1 if gap > GAP or grown else 0
        if self._over != TIMES:
            return None
        return (
            f"The sampler is {gap:.3g} nats a token away from the trainer (kl/sampler_trainer at step {step}), for "
            f"{TIMES} collections. Rollouts are then of another policy than the trained one: set rollout.vllm.dtype to "
            "the trainer's, or algorithm.correction."
        )


class EntropyCollapse:
    """The policy hardly varies any more, and its reward is no higher than at the start."""

    name = "entropy-collapse"

    def __init__(self) -> None:
        self._start: list[tuple[float, float]] = []
        self._latest: deque[tuple[float, float]] = deque(maxlen=TIMES)

    def look(self, step: int, metrics: Metrics, *, last: bool) -> str | None:
        """See `rules.Rule`."""
        if "entropy" not in metrics or "reward/mean" not in metrics:
            return None
        pair = metrics["entropy"], metrics["reward/mean"]
        if len(self._start) < TIMES:
            self._start.append(pair)
            return None
        self._latest.append(pair)
        if len(self._latest) < TIMES:
            return None
        (entropy, reward), (before, at_first) = (
            tuple(map(fmean, zip(*one, strict=True))) for one in (self._latest, self._start)
        )
        if entropy > min(COLLAPSED * before, NATS_LEFT) or reward > at_first:
            return None
        return (
            f"The entropy fell from {before:.3g} to {entropy:.3g} nats a token by step {step}, and the reward is no higher "
            f"than at the start ({reward:.3g}, {at_first:.3g} then): nothing new is tried. A lower learning_rate, kl_coef, "
            "entropy_coef or a higher rollout.temperature keep it open."
        )
