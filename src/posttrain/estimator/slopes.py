"""The derivative of a loss of token scope by the scores of some of its tokens, in closed form.

A weight is a constant of the loss. So with L = sum over terms of coef · (- sum_i sum_t w_it · logp_it · s_i / N), and
penalties,

    dL / dlogp_it = - sum over terms of coef · w_it · s_i / N        dL / dH_it, dL / dD_it = coef · s_i / N of its penalty

The output layer asks for it while the logits of these tokens are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from posttrain.estimator.algorithm import Algorithm, Penalty, Term
from posttrain.estimator.batch import PER_TOKEN, Batch
from posttrain.estimator.parts.average import divisor
from posttrain.estimator.parts.coefficient import coefficient_at
from posttrain.estimator.view import View


class TokenSlopes:
    """Of tokens of a batch, some at a time; its parts see them as one row.

    Args:
        algorithm: of token scope.
        batch: what `algorithm.prepare` returned, or a part of it.
        index: where the tokens stand in the flat batch.
        counts: denominators of the whole optimizer step.
    """

    def __init__(
        self, algorithm: Algorithm, batch: Batch, index: Int[Tensor, " n"], counts: Mapping[str, Float[Tensor, ""]]
    ) -> None:
        def of_tokens(values: Tensor) -> Shaped[Tensor, "1 n"]:
            return values.reshape(1, -1)[:, index]

        def share(part: Term | Penalty, select: Tensor) -> Float[Tensor, "1 n"]:
            scale = part.average.row_scale(select) * coefficient_at(part.coef, batch)
            return of_tokens(torch.where(select, scale, 0.0)) / divisor(counts[part.name])

        given = {name: value for name in PER_TOKEN if (value := getattr(batch, name)) is not None}
        self._tokens: dict[str, Any] = {name: of_tokens(value) for name, value in given.items()}
        self._progress = batch.progress
        selected = [(term, term.select(batch)) for term in algorithm.terms]
        self._terms = [(term, of_tokens(select), share(term, select)) for term, select in selected]
        asked = {"entropy": algorithm.needs.entropy, algorithm.divergence.name: algorithm.needs.compares_distributions}
        quantities = [name for name, wanted in asked.items() if wanted]
        of_penalties = [(quantities.index(part.quantity), share(part, part.select(batch))) for part in algorithm.penalties]
        self._penalties = [(1 + column, shares) for column, shares in of_penalties]

    def __call__(self, columns: Float[Tensor, "c k"], rows: slice) -> Float[Tensor, "c k"]:
        """By the log-probs of these tokens, and by their entropies and divergences where the algorithm needs them."""
        batch = Batch(progress=self._progress, **{name: value[:, rows] for name, value in self._tokens.items()})
        logp, slopes = columns[None, :, 0], torch.zeros_like(columns)
        for term, select, share in self._terms:
            weights = term.estimator.weights(View.of(batch, logp, select[:, rows]))
            slopes[:, 0] -= (weights.value * share[:, rows])[0]
        for column, share in self._penalties:
            slopes[:, column] += share[0, rows]
        return slopes
