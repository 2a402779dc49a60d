"""What others wrote in a row: whatever stands there, nothing that is learnt moves, and no gradient comes of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from cases import BY_ID, Case, differentiate, map_fields, on_policy, over, sample
from posttrain import Batch, Origin
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.recipe.fits.episodes import check_played

HOLE = float("nan")


def is_played(case: Case) -> bool:
    """Whether a recipe may play episodes by it."""
    try:
        check_played(EchoConfig(max_turns=2), case.algorithm.name, case.algorithm.needs)
    except ValueError:
        return False
    return on_policy(case)


def with_others(batch: Batch, inputs: Mapping[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """Where no loss is, somebody else wrote, and the numbers there are none."""
    holes = ~batch.loss_mask
    changed = map_fields(batch, lambda value: value.masked_fill(holes, HOLE), per_token=True)
    origin = torch.where(holes, int(Origin.OTHER), batch.origin)
    return changed.replace(origin=origin), {name: value.masked_fill(holes, HOLE) for name, value in inputs.items()}


@over(is_played)
def test_what_others_wrote_moves_nothing(case: Case) -> None:
    algorithm, drawn = case.algorithm, sample(case.algorithm, seed=3)
    expected, gradient = differentiate(algorithm, algorithm.prepare(drawn.batch), drawn.inputs())
    batch, inputs = with_others(drawn.batch, drawn.inputs())
    output, changed = differentiate(algorithm, algorithm.prepare(batch), inputs)
    assert torch.equal(output.loss, expected.loss) and torch.isfinite(output.loss)
    for name, value in gradient.items():
        holes = ~batch.loss_mask
        assert torch.equal(changed[name][~holes], value[~holes]), name
        assert not changed[name][holes].any(), name


def test_a_loss_on_others_would_be_seen() -> None:
    """One token more in the mask, as the policy's own, and the loss is no number: the test above can fail."""
    algorithm, drawn = BY_ID["grpo"].algorithm, sample(BY_ID["grpo"].algorithm, seed=3)
    batch, inputs = with_others(drawn.batch, drawn.inputs())
    own = batch.loss_mask.clone()
    row = int((own.any(-1) & ~own.all(-1)).nonzero()[0])
    own[row] = True
    with pytest.raises(ValueError, match="what others wrote is read"):
        batch.replace(loss_mask=own)
    taken = batch.replace(loss_mask=own, origin=torch.where(own, 0, batch.origin))
    output, _ = differentiate(algorithm, algorithm.prepare(taken), inputs)
    assert torch.isnan(output.loss)
