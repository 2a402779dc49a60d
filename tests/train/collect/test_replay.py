"""Rollouts of before: what is stored, what comes back and as what, how a run goes on from it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import PostTrainer, Sampling, Weighted, build_algorithm
from posttrain.errors import RecipeError
from posttrain.rollout.hf import HFEngine
from posttrain.settings.rollout import ReplayConfig
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.make import rollout_collector
from posttrain.train.collect.over.replay import ReplayCollector
from recipes import SCRATCH, Command, in_cells, recipe
from tiny import Thirds, make_model, make_problems
from train.collect.test_unsolved import RIGHT, UNKNOWN, WRONG, Listed, sampled
from train.test_resume import differ, ended

MakeTrainer = Callable[..., PostTrainer]
TASK = {"train": {"task": "running_totals", "rows": 12}}
GROUPS = [((WRONG, RIGHT, WRONG), False), ((WRONG, WRONG, WRONG), False), ((RIGHT, UNKNOWN, WRONG), False)]


def collected(replay: ReplayConfig, times: int, *, steps: int = 1, questions: int = 3) -> list[Collection]:
    inner = Listed(*(sampled(GROUPS, first=3 * k, steps=steps) for k in range(times)))
    collector = ReplayCollector(inner, replay, questions=questions, seed=5)
    return [collector.collect(None, 10 * k, 0.5) for k in range(times)]


def old_rows(collection: Collection, step: int) -> list[int]:
    return [row for row, version in enumerate(collection.flat.fields["version"][:, 0].tolist()) if version < step]


def test_groups_with_a_right_rollout_come_back_whole_and_only_right_rows_learn() -> None:
    first, second, third = collected(ReplayConfig(size=3, share=0.5, filter="right"), 3)
    assert not old_rows(first, 0) and first.metrics["rollout/replayed"] == 0 and first.metrics["rollout/stored"] == 2
    again = old_rows(second, 10)
    assert [second.where[row] for row in again] == ["question 0"] * 3 + ["question 2"] * 3
    assert second.steps == (tuple(range(15)),) and second.metrics["rollout/replayed"] == 6 / 15
    assert [row - 9 for row in second.muted] == [0, 2, 4, 5]  # of question 0 the second is right, of question 2 the first
    before, after = first.flat.fields, second.flat.fields
    for name in ("reward", "correct", "reward_mask"):
        assert torch.equal(after[name][again], before[name][[0, 1, 2, 6, 7, 8]]), name
    assert not {*after["group"][again].tolist()} & {*after["group"][:9].tolist()}
    told = build_algorithm("grpo", rollouts=3)
    one, other = (told.prepare(collection.batch).advantage for collection in (first, second))
    assert one is not None and other is not None and one[0].any()
    assert torch.equal(other[again][:, 0], one[[0, 1, 2, 6, 7, 8]][:, 0])
    assert {third.where[row] for row in old_rows(third, 20)} <= {"question 2", "question 3", "question 5"}  # 0 has left
    assert third.metrics["rollout/stored"] == 3 and third.metrics["rollout/replay_age"] == pytest.approx(40 / 3)


def test_a_group_of_right_rollouts_alone_has_no_advantage_and_is_not_stored_among_the_right() -> None:
    groups = [((RIGHT, RIGHT, RIGHT), False), ((RIGHT, UNKNOWN, RIGHT), False), ((RIGHT, WRONG, RIGHT), False)]
    for replay, stored in (
        (ReplayConfig(size=9, share=0.5, filter="right"), 1),
        (ReplayConfig(size=9, share=0.5, filter="all"), 3),
    ):
        one = ReplayCollector(Listed(sampled(groups)), replay, questions=3, seed=5).collect(None, 0, 0.5)
        assert one.metrics["rollout/stored"] == stored, replay.filter


def test_all_are_stored_and_so_many_come_to_each_step() -> None:
    made = collected(ReplayConfig(size=50, share=0.4, filter="all"), 3, steps=3, questions=3)
    assert [one.metrics["rollout/stored"] for one in made] == [3, 6, 9] and not any(one.muted for one in made)
    assert [[len(step) for step in one.steps] for one in made] == [[3, 3, 3], [6, 6, 6], [9, 9, 9]]
    assert len({made[2].where[row] for row in old_rows(made[2], 20)}) == 6


def test_what_was_sampled_long_ago_keeps_its_sampler() -> None:
    made = collected(ReplayConfig(size=9, share=0.5, filter="all"), 2)
    again = old_rows(made[1], 10)
    tokens = [made[1].flat.of_tokens("behavior_logp")[made[1].flat.span(row)] for row in again]
    assert all((one == -1).all() for one in tokens) and len(tokens) == 9
    assert (made[1].flat.fields["version"][:9] == 10).all() and not made[1].flat.fields["version"][again].any()


def trainer(make: MakeTrainer, **options: Any) -> PostTrainer:
    replay = ReplayConfig(size=6, share=0.5, filter="right")
    return make(
        "grpo",
        options={"rollouts": 4, "updates": 2, "old": "sampler"},
        model=make_model(),
        rows_per_step=8,
        optim="adamw_torch",
        learning_rate=1e-3,
        max_steps=6,
        trainer_options={"replay": replay},
        **options,
    )


def test_a_run_goes_on_with_what_is_stored(make_trainer: MakeTrainer) -> None:
    whole = trainer(make_trainer, save_strategy="steps", save_steps=1)
    whole.train()
    folder = Path(str(whole.args.output_dir))
    (folder / "eval.jsonl").touch()
    expected = ended(whole)
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [0 < step["rollout/replayed"] < 1 for step in steps[::2]] == [False, True, True]
    for step in (3, 4):
        again = trainer(make_trainer)
        again.run_files.resume_at(step)
        again.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        (folder / "eval.jsonl").touch()
        assert not differ(expected, ended(again)), step


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"name": "grpo"}, {}, "grpo compares with no sampler: set algorithm.correction"),
    ({"name": "reinforce", "old": "sampler"}, {}, "reinforce compares with no sampler"),
    ({"name": "hpt", "old": "sampler"}, {}, "hpt trains on rollouts with demonstrations of their questions"),
    ({"name": "dpo"}, {"pairs": {}}, "dpo trains on pairs of rollouts"),
    ({"name": "p3o"}, {}, "p3o makes its credit of all tokens together: take filter: all"),
    ({"name": "sdft"}, {}, "sdft has no option to weigh it by its sampler: it cannot replay"),
    ({"name": "grpo", "old": "sampler", "kl_coef": {"target": 0.1}}, {}, "kl_coef follows what is measured of the policy"),
    ({"name": "grpo", "old": "sampler"}, {"replay": {"share": 0.1}}, "a share of 0.1 of 2 questions a step is none"),
]


@pytest.mark.parametrize(("algorithm", "rollout", "sentence"), REFUSED)
def test_where_the_loss_would_be_wrong_of_old_rows_it_is_refused(
    algorithm: dict[str, Any], rollout: dict[str, Any], sentence: str, posttrain: Command
) -> None:
    code, _, err = posttrain("run", replaying(algorithm, **rollout), "--dry-run")
    assert code == 2 and "rollout.replay: " in err and sentence in err, err


def test_a_trainer_says_what_there_is_to_do_about_them() -> None:
    """An option, where the algorithm has one; sdft has none, and a value of one's own is given a part."""
    own = dataclasses.replace(build_algorithm("grpo", rollouts=2), name="mine")
    problems = make_problems(make_model()[1], template="{prompt} {demonstration}")
    for algorithm, says in (
        (build_algorithm("grpo", rollouts=2), "grpo compares with no sampler: set algorithm.correction"),
        (build_algorithm("sdft", rollouts=2), "sdft has no option to weigh it by its sampler: it cannot replay"),
        (build_algorithm("sdft", rollouts=2, compare="tokens"), "sdft has no option to weigh it by its sampler"),
        (own, r"mine compares with no sampler: give its terms a correction \(posttrain.estimator.parts.correction"),
    ):
        with pytest.raises(RecipeError, match=says):
            rollout_collector(
                problems,
                algorithm,
                rows=4,
                rewards=[Weighted(Thirds(), verdict=True)],
                engine=HFEngine(*make_model()),
                sampling=Sampling(max_tokens=4),
                tokenizer=make_model()[1],
                replay=ReplayConfig(share=0.5),
            )


def test_without_a_reward_that_says_what_is_right_the_plan_refuses_as_the_run_does(posttrain: Command) -> None:
    Path("rows.jsonl").write_text('{"prompt": "1 + 1 ="}\n')
    wanted = replaying({"name": "opd", "correction": {}}, data={"train": {"path": "rows.jsonl"}, "chat_template": False})
    for options in (("--dry-run",), ()):
        code, _, err = posttrain("run", wanted, *options)
        assert code == 2 and "filter: right asks which rollouts are right" in err, err


def replaying(algorithm: dict[str, Any], data: dict[str, Any] = TASK, **rollout: Any) -> str:
    sampling = {"questions_per_step": 2, "n": 2, "max_tokens": 6, "replay": {"share": 0.5, "size": 4}, **rollout}
    model = {**SCRATCH, **({"teachers": {"one": {"name": "start"}}} if algorithm["name"] == "opd" else {})}
    return recipe(model=model, algorithm=algorithm, data=data, rollout=sampling, training={"max_steps": 2})


def test_a_recipe_replays_and_says_so(posttrain: Command) -> None:
    code, out, err = posttrain("run", replaying({"name": "grpo", "correction": {}}), "--dry-run")
    said = "of up to 2 questions more a step, from the 4 latest questions with right and wrong"
    assert code == 0 and said in in_cells(out), err
