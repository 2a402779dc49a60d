"""What the documents say is what the code does: their examples run, and their table is generated.

`python tests/house/test_documents.py` writes docs/algorithms.md anew.
"""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import Batch, policy_gradient_loss
from posttrain.algorithms import example_values
from posttrain.estimator.algorithm import table_rows

ROOT = Path(__file__).parents[2]


def _code(document: str) -> str:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return block


def _table() -> str:
    heads = ["term", "mask", "denominator", "advantage", "likelihood", "average", "penalties"]
    lines = [
        "# Algorithms",
        "",
        "Generated from the values (`python tests/house/test_documents.py`). One row for each term:",
        "`grad = mask · (1 / denominator) · advantage · grad pi_theta`, divided by the count that `average` names.",
        "",
        "| algorithm | " + " | ".join(heads) + " | scope | paper |",
        "|" + "---|" * (len(heads) + 3),
    ]
    for algorithm in example_values():
        for i, row in enumerate(table_rows(algorithm)):
            name, scope, paper = (algorithm.name, algorithm.needs.scope, algorithm.paper) if i == 0 else ("", "", "")
            lines.append(f"| {name} | " + " | ".join(row[head] for head in heads) + f" | {scope} | {paper} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_algorithms_is_the_codes() -> None:
    assert (ROOT / "docs/algorithms.md").read_text() == _table()


def test_the_readmes_example_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(_code("README.md"), "README.md", "exec", dont_inherit=True), names)
    assert names["logits"].grad.abs().sum() > 0
    assert "group_normalised" in repr(names["algorithm"])


def test_an_algorithm_is_added_in_one_file_as_the_guide_shows() -> None:
    module = types.ModuleType("phi_sft")
    exec(compile(_code("CONTRIBUTING.md"), "phi_sft.py", "exec", dont_inherit=True), module.__dict__)
    algorithm = module.build(module.PhiSFT())
    mask = torch.tensor([[True, True, False], [True, False, False]])
    logp = (-torch.rand(2, 3, dtype=torch.float64)).requires_grad_()
    policy_gradient_loss(algorithm, logp, Batch(loss_mask=mask)).loss.backward()
    p = logp.detach().exp()
    expected = torch.where(mask, -p * (1 - p) / 3, 0.0)
    assert logp.grad is not None
    assert torch.allclose(logp.grad, expected, rtol=1e-12)
    assert "indecision" in repr(algorithm)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_documents_name_exist(document: str) -> None:
    named = re.findall(r"`((?:docs|tests|recipes|studies|src|benchmarks)/[\w./-]+)`", (ROOT / document).read_text())
    missing = [name for name in named if not (ROOT / name).exists() and "phi_sft" not in name]
    assert not missing


if __name__ == "__main__":
    (ROOT / "docs/algorithms.md").write_text(_table())
