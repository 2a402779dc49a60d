"""Several sources by the command line: the recipe that ships, and two ranks that read what one reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from recipes import Command, write
from system.processes import environment

pytestmark = pytest.mark.system
SHORT = ["training.max_steps=5", "data.eval={}", "training.save_every=0", "data.train.mix.chain.rows=64"]
SHORT += ["data.train.mix.totals.rows=64"]
RECIPE: dict[str, Any] = {
    "model": {
        "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
        "tokenizer": "characters",
    },
    "algorithm": {"name": "sft"},
    "data": {
        "train": {
            "mix": {"texts": {"path": "texts.jsonl"}, "chain": {"task": "chain", "rows": 30, "weight": 3}},
            "phases": [{"until": 0.5}, {"weights": {"texts": 2, "chain": 1}}],
        },
    },
    "training": {"max_steps": 6, "rows_per_step": 6, "learning_rate": 1e-2, "save_every": 0},
}
STREAM = {"path": "texts.jsonl", "stream": True, "shuffle_buffer": 7}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["sft", "dft", "psft"])
def test_the_recipe_of_a_mixture_trains_in_its_phases(name: str, posttrain: Command) -> None:
    options = [word for change in [*SHORT, f"algorithm.name={name}"] for word in ("--set", change)]
    code, _, err = posttrain("run", "mixture", *options, "--output-dir", "out")
    assert code == 0, err
    steps = lines(Path("out"))
    shares = [{source: step[f"data/share/{source}"] for source in ("tables", "chain", "totals")} for step in steps]
    assert shares == [{"tables": 0.125, "chain": 0.375, "totals": 0.5}] * 4 + [{"tables": 0.0, "chain": 0.25, "totals": 0.75}]


@pytest.mark.parametrize("place", ["memory", "disk", "stream"])
def test_two_ranks_read_and_train_what_one_does(place: str, tmp_path: Path) -> None:
    write(tmp_path / "texts.jsonl", *({"text": f"{i} is not {i + 1}. " * (1 + i % 3)} for i in range(20)))
    for processes in (1, 2):
        mode = {"distributed": {"mode": "ddp", "processes": 2, "timeout": 200}} if processes > 1 else {}
        streamed = {"data": {"train": STREAM, "max_tokens": 128}} if place == "stream" else {}
        values = {**RECIPE, **streamed, **mode, "output_dir": str(tmp_path / f"of_{processes}")}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "posttrain", "run", "recipe.yaml"]
        if processes > 1 and place == "disk":
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            command += [str(Path(__file__).parent / "rows_everywhere.py"), "recipe.yaml"]
        paths = {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_DATASETS_CACHE": str(tmp_path / "kept")}
        done = subprocess.run(command, env=environment(**paths), cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("kept/posttrain/*/rows"))) == (2 if place == "disk" else 0)
    one, two = (lines(tmp_path / f"of_{processes}") for processes in (1, 2))
    names = [name for name in one[0] if name.startswith(("data/share", "data/train/records", "nll", "loss"))]
    mixed = {"nll/texts", "nll/chain", "data/share/texts/tokens"}
    assert {*names} >= ({"nll", "data/train/records"} if place == "stream" else mixed)
    for alone, together in zip(one, two, strict=True):
        assert [alone[name] for name in names] == pytest.approx([together[name] for name in names], rel=1e-4)
    alone, together = (load_file(tmp_path / f"of_{n}/final/model.safetensors") for n in (1, 2))
    assert all(float((value - together[name]).abs().max()) < 1e-4 for name, value in alone.items())
