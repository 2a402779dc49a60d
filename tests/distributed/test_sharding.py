"""What cannot be shared out is refused before a group of ranks is asked."""

from __future__ import annotations

import pytest

from posttrain.distributed.sharding import _shard_by_torch
from posttrain.errors import SetupError
from posttrain.settings.distributed import DistributedConfig
from tiny import make_model


def test_fsdp2_refuses_a_shared_embedding() -> None:
    model, _ = make_model(tie_word_embeddings=True)
    with pytest.raises(SetupError, match=r"share a matrix: .* Take zero3"):
        _shard_by_torch(model, DistributedConfig(mode="fsdp2", processes=2))
