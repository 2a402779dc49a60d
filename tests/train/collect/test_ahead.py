"""Collections that are made ahead: by a process of its own, from weights that are exactly so many collections old."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from posttrain import Completion, PostTrainer, Request, Sampling, VLLMConfig, VLLMEngine, build_algorithm, load_recipe
from posttrain.algorithms import KIND
from posttrain.data.rows import Problem
from posttrain.errors import EngineError, SetupError
from posttrain.execution.training import sampled_ahead
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rewards.kinds.repetition import RepetitionReward
from posttrain.rewards.make import make_rewards
from posttrain.rewards.options import Judged
from posttrain.rollout.engine import sample_seed
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.vllm.served import ServedEngine
from posttrain.settings.data import PathSource
from posttrain.settings.model import CharacterTokenizer, ModelConfig
from posttrain.train.checkpoint import collection_file
from posttrain.train.collect.ahead.sampler import Ahead
from rollout.stand_in import StandIn, sample
from system.processes import gone
from tiny import TINY, parameters

OPTIONS = {"rollouts": 4, "updates": 2, "correction": {"level": "token", "cap": 1.5}}
DEADLINE = 10.0  # seconds
SAMPLING = Sampling(max_tokens=5, temperature=1.3, seed=5)
JUDGED, REWARDS = Judged(PathSource(path="none.jsonl"), SAMPLING.max_tokens), [RepetitionReward(n=1)]
BY, STEPS, SAVED = 2, 10, 5
TIMES = ("seconds", "per_second", "sync", "rollout/lag")
"""Of metrics: what hangs on the clock, or is of a run with a sampler alone."""


def make_model() -> tuple[Any, Any]:
    return load(ModelConfig(from_scratch=TINY, tokenizer=CharacterTokenizer(characters="abcdefgh"), dtype="float32"), seed=0)


def config_of(name: str, options: dict[str, Any]) -> Any:
    kind: Any = KIND.find(name)
    return kind.model_validate({"name": name, **options})


class Lagging:
    """What is to come out, said plainly: an engine in the process that samples from weights of `by` collections before."""

    def __init__(self, ends: Sequence[int], by: int) -> None:
        self._ends, self._by, self._models = ends, by, list[Any]()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        model = self._models[max(len(self._models) - 1 - self._by, 0)]
        return [[self._one(model, request, sampling, i) for i in range(request.n)] for request in requests]

    def _one(self, model: Any, request: Request, sampling: Sampling, i: int) -> Completion:
        seed = sample_seed(sampling, request.question, i) >> 1
        options = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "ends": self._ends}
        tokens, logprobs, finish = sample(model, request.prompt, seed=seed, **options)
        return Completion(tuple(tokens), tuple(logprobs), finish, self._version)  # type: ignore[arg-type]

    def sync(self, model: Any, version: int) -> None:
        self._models.append(copy.deepcopy(model).eval())
        self._version = version

    def close(self) -> None:
        pass


class Setting:
    """A server, an engine over it and a sampler, for trainers one after another."""

    def __init__(self, folder: Path) -> None:
        self.server, self.folder = StandIn(make_model()[0].eval(), 512), folder
        config = VLLMConfig(mode="server", url=self.server.url, weights_folder=str(folder / "weights"), deadline=DEADLINE)
        self.engine = VLLMEngine(*make_model(), config)
        self.ahead = Ahead(BY, config_of("grpo", OPTIONS), REWARDS, JUDGED, config)

    def ahead_by(self, name: str, options: dict[str, Any]) -> Ahead:
        """The same sampler, for another algorithm."""
        other = copy.copy(self.ahead)
        other.algorithm = config_of(name, options)
        return other

    def close(self) -> None:
        self.ahead.close()
        self.engine.close()
        self.server.close()


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    made = Setting(tmp_path_factory.mktemp("ahead"))
    yield made
    made.close()


def trainer(
    output: Path,
    engine: Any,
    ahead: Ahead | None,
    *,
    name: str = "grpo",
    options: dict[str, Any] = OPTIONS,
    sampling: Sampling = SAMPLING,
    **arguments: Any,
) -> PostTrainer:
    model, tokenizer = make_model()
    problems = [Problem([2 + i % 8, 2 + i // 8], {"prompt": f"q{i}"}, f"question {i}") for i in range(16)]
    settings = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVED, **arguments}
    return PostTrainer(
        model,
        build_algorithm(name, **options),
        tokenizer=tokenizer,
        train_dataset=problems,
        rewards=make_rewards(REWARDS, JUDGED),
        engine=engine,
        sampling=sampling,
        resamples=2,
        ahead=ahead,
        args=TrainingArguments(
            str(output), use_cpu=True, per_device_train_batch_size=12, learning_rate=3e-3, report_to=[], **settings
        ),
    )


def timeless(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if not any(word in name for word in TIMES)} for line in lines]


def completions(output: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (output / "completions").iterdir()}


def sampler_of(setting: Setting) -> int:
    assert setting.ahead.sampler is not None
    return setting.ahead.sampler._process.pid


@pytest.fixture(scope="module")
def trained(setting: Setting) -> PostTrainer:
    made = trainer(setting.folder / "whole", setting.engine, setting.ahead)
    made.train()
    return made


def test_it_trains_as_an_engine_does_whose_weights_are_so_many_collections_old(
    setting: Setting, trained: PostTrainer, tmp_path: Path
) -> None:
    model, tokenizer = make_model()
    plain = trainer(tmp_path, Lagging(eos_ids(model, tokenizer), BY), None)
    plain.train()
    assert torch.equal(parameters(trained.model), parameters(plain.model))
    assert not torch.equal(parameters(plain.model), parameters(model))
    assert timeless(setting.folder / "whole") == timeless(tmp_path)
    assert completions(setting.folder / "whole") == completions(tmp_path)
    metrics = [json.loads(line) for line in (setting.folder / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["rollout/lag"] for line in metrics if "rollout/lag" in line] == [0, 2, 4, 4, 4]
    assert set(setting.server.loaded) >= {"weights-000000", "weights-000002", "weights-000004"}
    assert not list((setting.folder / "weights").glob("weights-*"))


def test_none_ahead_is_a_run_without_the_key() -> None:
    plain, none = load_recipe("quickstart"), load_recipe("quickstart", ["stages.1.rollout.ahead=0"])
    assert none == plain and sampled_ahead(none.stages[1]) is None


def test_groups_without_signal_are_replaced_from_the_same_weights(setting: Setting, tmp_path: Path) -> None:
    options, short = {**OPTIONS, "updates": 1}, dataclasses.replace(SAMPLING, max_tokens=2)
    settings = {"name": "dapo", "options": options, "sampling": short, "max_steps": 3, "save_strategy": "no"}
    made = trainer(tmp_path / "ahead", setting.engine, setting.ahead_by("dapo", options), **settings)
    model, tokenizer = make_model()
    plain = trainer(tmp_path / "plain", Lagging(eos_ids(model, tokenizer), BY), None, **settings)
    for one in (made, plain):
        one.train()
    assert torch.equal(parameters(made.model), parameters(plain.model))
    assert timeless(tmp_path / "ahead") == timeless(tmp_path / "plain")
    assert timeless(tmp_path / "ahead")[-1]["rollout/replaced_groups"] > 0


def test_a_checkpoint_has_what_is_under_way_and_a_run_goes_on_from_it_to_the_last_bit(
    setting: Setting, trained: PostTrainer
) -> None:
    checkpoint = setting.folder / "whole" / f"checkpoint-{SAVED}"
    kept = sorted(path.name for path in checkpoint.glob("ahead-*"))
    assert kept == ["ahead-000006.safetensors", "ahead-000008.safetensors"]
    assert collection_file.load(checkpoint / kept[1]).flat.fields["version"].unique().tolist() == [4]
    before = timeless(setting.folder / "whole"), completions(setting.folder / "whole")
    resumed = trainer(setting.folder / "whole", setting.engine, setting.ahead)
    resumed.run_files.resume_at(SAVED)
    for path in (setting.folder / "whole" / "completions").glob("step-00000[79].jsonl"):
        path.unlink()
    asked = len(setting.server.loaded)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(parameters(resumed.model), parameters(trained.model))
    assert (timeless(setting.folder / "whole"), completions(setting.folder / "whole")) == before
    assert len(setting.server.loaded) == asked, "something was sampled twice"


def test_a_longer_run_samples_from_the_weights_that_are_there_and_says_so(
    setting: Setting, trained: PostTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    longer = trainer(setting.folder / "whole", setting.engine, setting.ahead, max_steps=STEPS + 4)
    longer.train(resume_from_checkpoint=str(setting.folder / "whole" / f"checkpoint-{STEPS}"))
    assert "what steps 11 to 13 train on is sampled from the weights of step 10" in caplog.text


@pytest.mark.parametrize(
    ("lost", "says"),
    [("", "answers the probe as before, to the last bit"), ("down_proj", r"differ from the trainer's by \d")],
)
def test_weights_that_did_not_arrive_are_refused(setting: Setting, lost: str, says: str) -> None:
    model, _ = make_model()
    config = VLLMConfig(mode="server", url=setting.server.url, weights_folder=str(setting.folder / "weights"))
    engine = VLLMEngine(*make_model(), config)
    served = ServedEngine(engine.served())
    for version in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version))
        parcel = engine.parcel(model, version)
        if version == 1:
            served.sync(parcel, version)
            assert served.version == 1
    setting.server.leaves_out = lost
    try:
        with pytest.raises(EngineError, match=says):
            served.sync(parcel, 2)
        with pytest.raises(EngineError, match="no weights of the trainer"):
            served.generate([Request([2])], SAMPLING)
    finally:
        setting.server.leaves_out = None
        engine.close()


def test_an_engine_in_the_process_and_an_algorithm_without_a_correction_are_refused(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"sampled ahead by vLLM servers.*not by HFEngine"):
        trainer(tmp_path, HFEngine(*make_model()), setting.ahead)
    model, tokenizer = make_model()
    with pytest.raises(SetupError, match="reinforce needs a correction"):
        PostTrainer(
            model,
            "reinforce",
            tokenizer=tokenizer,
            train_dataset=[Problem([2], {"prompt": "q"}, "question")],
            rewards=make_rewards(REWARDS, JUDGED),
            engine=setting.engine,
            sampling=SAMPLING,
            ahead=setting.ahead,
            args=TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]),
        )


def test_what_fails_in_the_sampler_ends_the_run_as_the_error_that_it_was(setting: Setting, tmp_path: Path) -> None:
    made = trainer(tmp_path, setting.engine, setting.ahead, save_strategy="no")
    setting.server.leaves_out = "down_proj"
    try:
        with pytest.raises(EngineError, match=r"After the sync to version \d+ .* differ from the trainer's"):
            made.train()
    finally:
        setting.server.leaves_out = None


def test_a_sampler_that_works_long_is_waited_for(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path, setting.engine, setting.ahead, max_steps=2, save_strategy="no")
    monkeypatch.setattr(setting.ahead.sampler, "_deadline", 2.0)
    setting.server.delay = 3.5
    made.train()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["rollout/waited_seconds"] > 2.5


def test_of_a_sampler_that_is_stopped_it_is_told_once_and_the_run_goes_on_with_it(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, pid = trainer(tmp_path, setting.engine, setting.ahead, max_steps=4, save_strategy="no"), sampler_of(setting)

    def go_on_when_it_is_told() -> None:
        end = time.monotonic() + 6 * DEADLINE
        while "has given no sign of life for 1 s" not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(go_on_when_it_is_told)
        made.train()
    assert len(timeless(tmp_path)) == 4
    assert caplog.text.count("has given no sign of life") == 1


def test_a_sampler_that_stays_silent_is_ended_and_the_run_with_it(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pid = trainer(tmp_path, setting.engine, setting.ahead), sampler_of(setting)
    monkeypatch.setattr(setting.ahead.sampler, "_deadline", 1.5)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=r"no sign of life for 1\.5 s: it was stopped, or hangs.*the same command goes on"):
        made.train()
    assert gone(pid, within=5)
