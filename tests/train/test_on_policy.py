"""Training on rollouts: exact gradients with real sampling, forwards that are not made, splits, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import each_needs
from posttrain import Completion, Group, Judgement, PostTrainer, Request, Sampling, build_algorithm
from posttrain.errors import RecipeError, SetupError
from posttrain.rollout.hf import HFEngine
from tiny import make_model, parameters
from train import naive

MakeTrainer = Callable[..., PostTrainer]
GROUP = {"rollouts": 4}
FAMILY = {
    "grpo": GROUP,
    "dr_grpo": {**GROUP, "max_tokens": 8},
    "dapo": GROUP,
    "gspo": {**GROUP, "clip_low": 0.01, "clip_high": 0.02},
    "cispo": GROUP,
    "reinforce": GROUP,
    "rloo": GROUP,
}
MENU: list[tuple[str, dict[str, Any]]] = [
    *((name, {**GROUP, "updates": 2}) for name in ("gmpo", "sapo", "dppo", "vespo", "dro", "topr", "asymre", "opmd", "rec")),
    *((name, GROUP) for name in ("gpg", "opo", "p3o")),
    *((name, {**GROUP, "updates": 2}) for name in ("gdpo", "best_of_group", "top_entropy")),
    ("clip_cov", {**GROUP, "updates": 2, "low": 0.0, "share": 0.2}),
    ("kl_cov", {**GROUP, "updates": 2, "share": 0.2}),
    ("reinforce_pp", {**GROUP, "updates": 2, "kl_coef": 0.3}),
    ("f_grpo", {**GROUP, "updates": 2}),
    ("grpo", {**GROUP, "updates": 2, "off_policy_mask": 0.05}),
]
HYBRIDS: dict[str, dict[str, Any]] = {
    "hpt": {**GROUP, "max_tokens": 8, "gate": 1},
    "prefix_rft": {**GROUP, "max_tokens": 8, "keep": 0.5},
    "luffy": {**GROUP, "max_tokens": 8},
    "srft": {**GROUP, "max_tokens": 8},
    "chord": {**GROUP, "demonstrations": 3},
    "grpo_sft": GROUP,
}
CREDITS = ("grpo", "dr_grpo", "dapo", "reinforce", "rloo")
"""One for each way from rewards to advantages."""
ALIKE = [name for name in FAMILY if name not in CREDITS]
CORRECTIONS = [
    {"level": level, "form": form, "cap": 1.05}
    for level in ("token", "sequence", "geometric")
    for form in ("truncate", "mask")
]
VARIANTS = [
    *FAMILY.items(),
    *((name, {**options, "updates": 2}) for name, options in FAMILY.items() if name != "reinforce"),
    *HYBRIDS.items(),
    *((name, {**options, "updates": 2}) for name, options in HYBRIDS.items()),
    ("prefix_rft", {**HYBRIDS["prefix_rft"], "updates": 2, "old": "sampler"}),
    ("uft", {**GROUP, "low": 0.5, "kl_coef": 0.1, "entropy_coef": 0.1, "sft_coef": 0.3}),
    ("bread", {**GROUP, "updates": 2}),
    ("grpo", {**GROUP, "updates": 2, "kl_in": "reward", "kl_coef": 0.3}),
    ("rloo", {**GROUP, "kl_coef": 0.3}),
    ("grpo", {**GROUP, "updates": 2, "old": "sampler"}),
    ("grpo", {**GROUP, "entropy_coef": 0.1}),
    *(("grpo", {**GROUP, "correction": correction, "updates": 2}) for correction in CORRECTIONS),
    *(("reinforce", {**GROUP, "correction": correction}) for correction in CORRECTIONS),
    *MENU,
]


class Shifted:
    """An engine whose reported log-probs are off, by another amount at each token: a sampler that is not the trainer."""

    def __init__(self, engine: HFEngine, by: float) -> None:
        self._engine, self._by, self.sync, self.close = engine, by, engine.sync, engine.close

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        def shifted(one: Completion) -> Completion:
            off = (self._by * math.sin(7 * token + t) for t, token in enumerate(one.tokens))
            return dataclasses.replace(one, logprobs=tuple(p + o for p, o in zip(one.logprobs, off, strict=True)))

        return [[shifted(one) for one in group] for group in self._engine.generate(requests, sampling)]


class Constant:
    """A reward that says the same of everything, or nothing at all."""

    name = "constant"

    def __init__(self, score: float | None) -> None:
        self._score = score

    def judge(self, group: Group) -> list[Judgement]:
        return [Judgement(self._score)] * len(group.completions)

    def close(self) -> None:
        pass


def steps_of(trainer: PostTrainer) -> list[dict[str, Any]]:
    path = Path(str(trainer.args.output_dir)) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@each_needs(VARIANTS)
def test_all_updates_have_the_gradients_of_the_models_own_full_logits(
    name: str, options: dict[str, Any], make_trainer: MakeTrainer
) -> None:
    model, tokenizer = make_model()
    engine = Shifted(HFEngine(model, tokenizer), 0.1)
    updates, rate, at = options.get("updates", 1), 0.05, 1.3
    trainer = make_trainer(
        name, options=options, model=(model, tokenizer), rows_per_step=8, micro_rows=4, max_steps=updates, learning_rate=rate,
        trainer_options={"engine": engine},
    )  # fmt: skip
    start = parameters(model)
    collection = trainer.run_state.collector.collect(model, 0, 0.0)
    ref = naive.log_softmax(model, collection, at).detach()
    old = naive.of_tokens(ref, collection)
    assert collection.batch.behavior_logp is not None
    if options.get("old") == "sampler":
        old = torch.where(collection.batch.origin == 0, collection.batch.behavior_logp, old)
    twin, _ = make_model()
    for units in collection.steps:
        change = naive.gradient(build_algorithm(name, **options), twin, collection, units, old=old, ref=ref, at=at)
        assert change.abs().max() > 1e-4
        with torch.no_grad():
            for parameter in twin.parameters():
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
    trainer.train()
    moved, expected = parameters(model) - start, parameters(twin) - start
    assert (moved - expected).abs().max() < 1e-10 * expected.abs().max()


@each_needs(
    (name, {**FAMILY.get(name, HYBRIDS.get(name, {})), "updates": 1 if name == "reinforce" else 2})
    for name in (*FAMILY, *HYBRIDS, "psft")
)
def test_any_split_of_the_steps_gives_the_same_parameters(
    name: str, options: dict[str, Any], make_trainer: MakeTrainer
) -> None:
    trained = []
    for i, split in enumerate([{}, {"micro_rows": 1}, {"micro_rows": 4}, {"micro_tokens": 40}]):
        trainer = make_trainer(name, options=options, rows_per_step=8, output=str(i), learning_rate=1e-2, **split)
        trainer.train()
        trained.append(parameters(trainer.model))
    for other in trained[1:]:
        assert torch.allclose(trained[0], other, rtol=0, atol=1e-12 * float(trained[0].abs().max()))


@pytest.mark.parametrize(
    ("options", "forwards"),
    [({}, 4), ({"updates": 2}, 8), ({"updates": 4}, 8), ({"updates": 2, "old": "sampler"}, 4)],
    ids=["one_update", "two", "four", "of_the_sampler"],
)
def test_old_log_probs_cost_a_second_forward_where_several_updates_need_them_only(
    options: dict[str, Any], forwards: int, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer("grpo", options={**GROUP, "kl_coef": 0.0, **options}, rows_per_step=8)
    counted: list[bool] = []
    trainer.model.register_forward_hook(  # type: ignore[union-attr]
        lambda module, args, kwargs, output: counted.append(not kwargs.get("past_key_values")), with_kwargs=True
    )
    trainer.train()
    assert sum(counted) == forwards  # of four steps in one micro-batch each; all but sampling's


def test_the_gap_between_sampler_and_trainer_is_logged_at_every_step(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("grpo", options={**GROUP, "updates": 2}, rows_per_step=8)
    trainer.train()
    for step in steps_of(trainer):
        assert abs(step["kl/sampler_trainer"]) < 1e-6 and step["logp_diff/max"] < 1e-5
        assert step["rollout/effective_sample_size"] == pytest.approx(1, abs=1e-6)
    model, tokenizer = make_model()
    engine = {"engine": Shifted(HFEngine(model, tokenizer), 0.5)}
    off = make_trainer("grpo", options=GROUP, rows_per_step=8, model=(model, tokenizer), trainer_options=engine, output="off")
    off.train()
    for step in steps_of(off):
        assert 0.4 < step["logp_diff/max"] < 0.51
        assert step["kl/sampler_trainer"] == pytest.approx(0.0625, rel=0.5)  # E[sin²] · 0.5² / 2
        assert 0.8 < step["rollout/effective_sample_size"] < 0.95


@pytest.mark.parametrize("name", [*CREDITS, *(pytest.param(name, marks=pytest.mark.system) for name in ALIKE)])
@pytest.mark.parametrize("score", [0.3, None])
def test_where_no_reward_says_anything_nothing_is_trained(name: str, score: float | None, make_trainer: MakeTrainer) -> None:
    options = {**FAMILY[name], "kl_coef": 0.0}
    if name == "reinforce":
        options["baseline"] = "group_mean"
    trainer = make_trainer(
        name, options=options, rows_per_step=8, trainer_options={"rewards": [Constant(score)], "resamples": 1}, max_steps=2
    )
    start = parameters(trainer.model)
    trainer.train()
    assert torch.equal(parameters(trainer.model), start)
    for step in steps_of(trainer):
        assert step["loss"] == 0 and step["train/skipped_rows"] == 1
        assert step["rollout/ungraded"] == float(score is None) and step["rollout/equal_groups"] == 1
        assert step["rollout/failed_grades"] == 0


def test_completions_that_were_cut_off_pay_their_kl_and_carry_no_loss(make_trainer: MakeTrainer) -> None:
    """The baseline of a group is that of all its rewards, each less its own KL."""
    options = {**GROUP, "kl_in": "reward", "kl_coef": 0.5, "updates": 2}
    trainer = make_trainer("grpo", options=options, rows_per_step=8, trainer_options={"mask_cut_off": True})
    with torch.no_grad():
        for parameter in trainer.model.parameters():  # type: ignore[union-attr]
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    collection = trainer.run_state.collector.collect(trainer.model, 0, 0.0)
    opened = trainer._learner.open(trainer.model, collection)  # type: ignore[arg-type]
    assert collection.muted and len(collection.muted) < len(collection.rows)
    whole = collection.batch.replace(old_logp=opened.batch.old_logp, ref_logp=opened.batch.ref_logp)
    expected = build_algorithm("grpo", **options).prepare(whole)
    assert expected.advantage is not None and opened.batch.advantage is not None
    assert torch.equal(opened.batch.advantage, expected.advantage)
    muted = list(collection.muted)
    assert not opened.batch.loss_mask[muted].any()
    assert float((whole.old_logp - whole.ref_logp)[muted].abs().max()) > 0.01  # type: ignore[operator]


def test_completions_of_each_collection_are_written(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("grpo", options={**GROUP, "updates": 2}, rows_per_step=8)
    trainer.train()
    folder = Path(str(trainer.args.output_dir)) / "completions"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001.jsonl", "step-000003.jsonl"]
    rows = [json.loads(line) for line in (folder / "step-000003.jsonl").read_text().splitlines()]
    assert len(rows) == 16 and {row["step"] for row in rows} == {3}
    assert all(row["reward"] == row["rewards"]["thirds"] and row["where"].startswith("question") for row in rows)


@pytest.mark.parametrize(
    ("options", "sampling", "says"),
    [
        ({}, {"temperature": 0.0}, "at temperature 0"),
        ({"updates": 2}, {"top_p": 0.9}, "cut-off distribution"),
        ({"correction": CORRECTIONS[0]}, {"top_k": 20}, "cut-off distribution"),
        ({"old": "sampler"}, {"top_k": 20}, "old: sampler"),
        ({"kl_in": "reward", "kl_coef": 0.1}, {"top_p": 0.9}, "a KL in the reward"),
        ({"rollouts": 3}, {}, "whole number of groups"),
    ],
)
def test_what_would_train_something_else_is_refused(
    options: dict[str, Any], sampling: dict[str, Any], says: str, make_trainer: MakeTrainer
) -> None:
    sampled = {"sampling": Sampling(max_tokens=4, **sampling)}
    with pytest.raises(RecipeError, match=says):
        make_trainer("grpo", options={**GROUP, "kl_coef": 0.0, **options}, rows_per_step=8, trainer_options=sampled)


def test_top_p_without_any_ratio_is_a_choice(make_trainer: MakeTrainer) -> None:
    sampled = {"sampling": Sampling(max_tokens=4, top_p=0.9)}
    trainer = make_trainer("grpo", options={**GROUP, "kl_coef": 0.0}, rows_per_step=8, trainer_options=sampled)
    start = parameters(trainer.model)
    trainer.train()
    assert not torch.equal(parameters(trainer.model), start)
    for step in steps_of(trainer):  # the sampler's distribution is cut off, by a tenth at most, and the trainer's is whole
        assert 0.01 < step["logp_diff/max"] <= -math.log(0.9) + 1e-5


@pytest.mark.parametrize("missing", ["rewards", "sampling"])
def test_what_rollouts_need_is_asked_for(missing: str, make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match="pass rewards= and sampling="):
        make_trainer("grpo", options=GROUP, rows_per_step=8, trainer_options={missing: () if missing == "rewards" else None})


def test_answers_that_are_cut_off_stay_where_all_tokens_are_counted(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match="top_entropy makes its credit of all tokens together"):
        make_trainer("top_entropy", options=GROUP, rows_per_step=8, trainer_options={"mask_cut_off": True})
    make_trainer("dapo", options=GROUP, rows_per_step=8, trainer_options={"mask_cut_off": True})
