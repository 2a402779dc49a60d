"""The output layer's kernel in Triton's interpreter, which has no GPU: what it computes is what torch's operations do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system
PROGRAM = """
import torch
from posttrain.model.head.kernel import TILE, launch
from posttrain.model.head.softmax import ENTRIES, softmax_

assert min(ENTRIES) > 2 * TILE

for vocabulary in (97, TILE, TILE + 905):
    for with_bias in (False, True):
        draw = torch.Generator().manual_seed(vocabulary)
        room = 4 * torch.randn(3, vocabulary + 7, generator=draw)
        logits = room[:, :vocabulary]  # rows that lie apart
        logits[0, 5], logits[1] = 80.0, -90.0
        bias = torch.randn(vocabulary, generator=draw) if with_bias else None
        targets = torch.randint(vocabulary, (3, 1), generator=draw)
        expected_p, beyond = logits.clone(), room[:, vocabulary:].clone()
        expected = softmax_(expected_p, bias, targets, 0.7)
        log_p = launch(logits, bias, targets, 0.7)
        torch.testing.assert_close(log_p, expected, rtol=1e-6, atol=5e-6)
        torch.testing.assert_close(logits, expected_p, rtol=1e-5, atol=1e-30)
        assert torch.equal(room[:, vocabulary:], beyond)
        print(vocabulary, with_bias)
"""


def test_it_gives_log_probs_and_probabilities_of_any_number_of_entries() -> None:
    """Of less than a tile, of one, and of one and a part; with a bias and without; and writes nowhere else."""
    environment = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 6
