"""Credit from the verdict of right or wrong, and from how sure the collecting policy was: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

import torch

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.select import rollouts


def row_entropy(batch: Batch, *, cap: float) -> Batch:
    """The collected entropy of each row, its mean over the tokens that carry loss, in place of the tokens' own; at most
    log `cap`, so that exp(H) is at most `cap`.

    Raises:
        ValueError: the batch has no entropy.
    """
    if batch.entropy is None:
        raise ValueError("Rows are weighted by the collecting policy's entropy: set Batch.entropy.")
    size = batch.loss_mask.sum(-1, keepdim=True).clamp(min=1)
    mean = torch.where(batch.loss_mask, batch.entropy, 0.0).sum(-1, keepdim=True) / size
    return batch.replace(entropy=mean.exp().clamp(max=cap).log().expand(batch.loss_mask.shape))


def signed_rollouts(batch: Batch, *, coef: float) -> Batch:
    """A = coef · exp(H) on right rollouts and -1 on wrong ones, H the row's entropy; demonstrations keep theirs
    (SRFT, arXiv:2506.19767, eq. 11 and 12).

    Raises:
        ValueError: the batch has no verdicts.
    """
    if batch.correct is None:
        raise ValueError("Right and wrong rollouts have other weights: set Batch.correct, by a reward with verdict: true.")
    assert batch.entropy is not None and batch.advantage is not None
    signed = torch.where(batch.correct[:, None], coef * batch.entropy.exp(), -1.0)
    return batch.replace(advantage=torch.where(rollouts(batch), signed, batch.advantage))
