"""A teacher behind a real vLLM server: its log-probs are those of the model that it serves, and a run learns from them.

A missing vLLM is a failure here: `make setup-vllm`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from posttrain.data.rows import Example, Row
from posttrain.errors import EngineError, SetupError
from posttrain.model.frozen.teacher import load_teacher, teacher_of
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.make import make_layout
from posttrain.model.load import load, make_tokenizer
from posttrain.model.proofs.trials import usable_layout
from posttrain.model.scoring import Scorer
from posttrain.rollout.vllm.backend import engine_arguments
from posttrain.rollout.vllm.process import ServerProcess
from posttrain.rollout.vllm.server import Server
from posttrain.rollout.vllm.teacher import ServedTeacher
from posttrain.settings.model import ModelConfig, TeacherConfig
from posttrain.settings.rollout import VLLMConfig
from posttrain.settings.training import RowLayout
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations
from recipes import SCRATCH, Command, recipe

pytestmark = pytest.mark.system
SIZES = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, "initializer_range": 0.3}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A teacher's folder, its tokenizer, and the process that serves it."""
    folder = tmp_path_factory.mktemp("teacher")
    described = {"from_scratch": {**SIZES, "max_position_embeddings": 128}, "tokenizer": "characters"}
    model, tokenizer = load(ModelConfig.model_validate(described), seed=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = VLLMConfig(mode="server", max_num_seqs=8)
    process = ServerProcess(engine_arguments(config, folder, "float32", cpu=True), folder / "server.log", {})
    try:
        Server(process.url, config, process)
        yield SimpleNamespace(folder=folder, tokenizer=tokenizer, process=process, url=process.url)
    finally:
        process.close()


def collected_as(collection: Collection) -> ModelInputs:
    return make_layout("padded", pad_id=0).inputs(collection.rows, collection.batch)


def test_its_log_probs_are_those_of_the_model_that_is_served(served: Any) -> None:
    """In each layout, after a prompt of the teacher's own or the student's; of rows with gaps in their loss or none."""
    rng = np.random.default_rng(0)

    def row(prompt: int, answer: int, taught: int | None, carries: bool = True) -> Example:
        ids = [rng.integers(7, 60, size, dtype=np.int32) for size in (prompt, answer, taught or 0)]
        mask = np.array([carries and place % 3 != 1 for place in range(answer)])
        return Example((Row(ids[0], ids[1], mask, teacher_prompt=None if taught is None else ids[2]),), "")

    rows = [row(3, 5, 20), row(9, 1, 2), row(4, 12, None), row(2, 7, 8, carries=False), row(5, 4, 30)]
    collection = collect_demonstrations(rows, progress=0.0)
    policy, _ = load(ModelConfig.model_validate({"from_scratch": SIZES, "tokenizer": "characters"}), seed=0)
    own = load_teacher("t", TeacherConfig(name=str(served.folder)), served.tokenizer)
    here = teacher_of("t", own, policy, vocabulary=len(served.tokenizer), head="two_pass", full=False)
    there = ServedTeacher("t", served.url, served.tokenizer)
    assert there.context == 127 and served.url in there.label
    names: tuple[RowLayout, ...] = ("padded", "packed", "shared")
    for name in names:
        assert usable_layout(own, name, len(served.tokenizer)) == name
        inputs = make_layout(name, pad_id=0).inputs(collection.rows, collection.batch)
        assert inputs.teacher is not None
        mask = collection.batch.loss_mask
        expected, found = (one.logp(inputs.teacher, mask, Scorer()) for one in (here, there))
        assert (found[mask] < 0).all() and not found[~mask].any()
        assert (found - expected).abs().max() < 1e-4
    with pytest.raises(SetupError, match=r"gives log-probs at temperature 1, and rollouts are sampled at 0\.7"):
        there.logp(collected_as(collection), collection.batch.loss_mask, Scorer(temperature=0.7))
    with pytest.raises(SetupError, match="has another vocabulary than the student: ids 0 to"):
        ServedTeacher("t", served.url, make_tokenizer("bytes"))
    long = collect_demonstrations([row(100, 40, None)], progress=0.0)
    with pytest.raises(EngineError, match="gave no log-probs of a row of 140 tokens"):
        there.logp(collected_as(long), long.batch.loss_mask, Scorer())


def test_a_run_learns_the_same_from_it_and_ends_when_it_is_gone(served: Any, posttrain: Command) -> None:
    def made(**teacher: Any) -> str:
        told = {**teacher, "template": "{prompt} is {answer}"}
        rollout = {"questions_per_step": 2, "n": 2, "max_tokens": 4}
        training = {"max_steps": 2, "save_every": 1}
        model = {**SCRATCH, "teachers": {"t": told}}
        return recipe(
            model=model, algorithm={"name": "opd"}, rollout=rollout, training=training, output_dir=next(iter(teacher))
        )

    gaps: list[list[float]] = []
    for teacher in ({"name": str(served.folder)}, {"url": served.url}):
        code, out, err = posttrain("run", made(**teacher))
        assert code == 0, out + err
        lines = Path(next(iter(teacher)), "metrics.jsonl").read_text().splitlines()
        gaps.append([json.loads(line)["kl/teacher"] for line in lines])
    assert torch.allclose(*map(torch.tensor, gaps), rtol=0, atol=1e-4) and abs(gaps[0][0]) > 0.1
    manifest = json.loads(Path("url/checkpoint-2/manifest.json").read_text())
    assert str(served.folder) in json.dumps(manifest)
    there = ServedTeacher("t", served.url, served.tokenizer)
    served.process.close()
    ids = np.ones(3, np.int32)
    collection = collect_demonstrations([Example((Row(ids, ids, np.ones(3, np.bool_)),), "")], progress=0.0)
    with pytest.raises(EngineError, match="is lost"):
        there.logp(collected_as(collection), collection.batch.loss_mask, Scorer())
