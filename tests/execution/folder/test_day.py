"""A template that writes the date writes the same one from a run's first start to its end."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from families import DATED, of_bytes
from posttrain.data.encoding import template as templates
from posttrain.data.encoding.encoder import Encoder
from posttrain.model.load import load
from posttrain.settings.data import Encoding
from posttrain.settings.model import ModelConfig

FIRST, NEXT = datetime.date(2026, 3, 4), datetime.date(2026, 3, 5)


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    model, _ = load(ModelConfig.model_validate({"from_scratch": size, "tokenizer": "bytes"}), seed=0)
    model.save_pretrained(tmp_path / "start")
    of_bytes(DATED).save_pretrained(tmp_path / "start")
    rows = [{"prompt": f"{i}+1?", "completion": str(i + 1)} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": str(tmp_path / "start")},
        "algorithm": {"name": "sft"},
        "data": {"train": {"path": str(tmp_path / "rows.jsonl")}},
        "training": {"max_steps": 1, "rows_per_step": 4, "save_every": 1},
        "output_dir": str(tmp_path / "run"),
    }


def test_a_run_goes_on_the_next_day_with_the_day_that_it_began_on(
    recipe: dict[str, Any], posttrain: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(day: datetime.date, **changes: Any) -> tuple[int, str]:
        monkeypatch.setattr(templates, "today", lambda: day)
        monkeypatch.setattr("posttrain.execution.folder.day.today", lambda: day)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, **changes}))
        code, _, err = posttrain("run", str(tmp_path / "recipe.yaml"))
        return code, err

    code, err = run(FIRST)
    assert code == 0 and "writes the date: 2026-03-04" in err
    code, err = run(NEXT, training={**recipe["training"], "max_steps": 2})
    assert code == 0 and "writes the date: 2026-03-04" in err
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["date"] == "2026-03-04"
    code, err = run(NEXT, data={**recipe["data"], "date": "2026-03-05"})
    assert code == 8 and "data.date" in err


def test_the_day_of_the_recipe_is_what_the_template_writes() -> None:
    made = of_bytes(DATED)
    config = Encoding.model_validate({"date": "2024-07-26"})
    assert made.decode(Encoder(made, config, [1]).prompt({"prompt": "a"})[0]).startswith("Today is 26 July 2024\n")
