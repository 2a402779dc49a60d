"""A buffer of unsolved questions: what waits in it, what is trained on and when, and how a run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import Algorithm, Origin, PostTrainer, build_algorithm, policy_gradient_loss
from posttrain.data.rows import Row
from posttrain.errors import CheckpointError, SetupError
from posttrain.estimator import Needs
from posttrain.estimator.needs import Buffer
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.flat import Flat
from posttrain.train.collect.over.over import Over
from posttrain.train.collect.over.unsolved import UnsolvedCollector, parted
from recipes import Command, in_cells, recipe

MakeTrainer = Callable[..., PostTrainer]
RIGHT, WRONG, UNKNOWN = True, False, None


def sampled(groups: Sequence[tuple[Sequence[bool | None], bool]], *, first: int = 0, steps: int = 1) -> Collection:
    """Of each question verdicts of its answers, None where one has no grade, and whether a demonstration is its last row.

    Rows have 1 to 3 tokens, 10 and more for answers, 50 and more for the demonstration of question `first` + i.
    """
    rows = [(g, known, False) for g, (verdicts, _) in enumerate(groups) for known in verdicts]
    for g in reversed(range(len(groups))):
        if groups[g][1]:
            rows.insert(max(i for i, row in enumerate(rows) if row[0] == g) + 1, (g, True, True))
    tokens = [np.full(i % 3 + 1, (50 if shown else 10) + first + g, np.int32) for i, (g, _, shown) in enumerate(rows)]
    lengths = np.array([len(one) for one in tokens])
    origin = np.repeat([Origin.DEMO if shown else Origin.ROLLOUT for *_, shown in rows], lengths).astype(np.int8)
    known = torch.tensor([verdict is not None for _, verdict, _ in rows])
    right = torch.tensor([bool(verdict) for _, verdict, _ in rows])
    each = len(groups) // steps
    fields = {
        "loss_mask": torch.ones(int(lengths.sum()), dtype=torch.bool),
        "tokens": torch.from_numpy(np.concatenate(tokens)),
        "origin": torch.from_numpy(origin),
        "behavior_logp": torch.where(torch.from_numpy(origin) == Origin.DEMO, 0.0, -1.0),
        "group": torch.tensor([g for g, *_ in rows]),
        "reward": right.double(),
        "reward_mask": known,
        "correct": right,
    }
    return Collection(
        rows=tuple(Row(np.array([1], np.int32), one, np.ones(len(one), np.bool_)) for one in tokens),
        units=tuple((i,) for i in range(len(rows))),
        steps=tuple(tuple(i for i, row in enumerate(rows) if row[0] // each == k) for k in range(steps)),
        where=tuple(f"question {first + g}" for g, *_ in rows),
        sources=tuple(f"source {g % 2}" for g, *_ in rows),
        flat=Flat(lengths, fields, 0.5),
        metrics={"rollout/length": 2.0},
    )


class Listed(Over):
    """Gives these collections, one after another, whatever the step."""

    def __init__(self, *collections: Collection) -> None:
        self._left = list(collections)

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        return self._left.pop(0)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Any, ahead: Any = None, kept: Any = None) -> None:
        pass


def demonstrated(collection: Collection, step: int) -> list[str]:
    """Of which questions a step trains on demonstrations."""
    rows = [row for unit in collection.steps[step] for row in collection.units[unit]]
    batch = collection.batch
    return [collection.where[row] for row in rows if batch.origin[row, 0] == Origin.DEMO and batch.loss_mask[row].any()]


def all_wrong(questions: int, *, first: int, steps: int = 1) -> Collection:
    return sampled([((WRONG, WRONG), True)] * questions, first=first, steps=steps)


def test_a_question_waits_where_answers_are_graded_and_none_is_right() -> None:
    groups = [
        ((WRONG, RIGHT), True),
        ((WRONG, WRONG), True),
        ((WRONG, UNKNOWN), True),
        ((UNKNOWN, UNKNOWN), True),
        ((WRONG, WRONG), False),
    ]
    tried, unsolved, share = parted(sampled(groups))
    assert unsolved is not None and unsolved.where == ("question 1", "question 2") and share == 3 / 5
    assert [row.completion[0] for row in unsolved.rows] == [51, 52]
    assert len(tried.rows) == 10 and (tried.batch.origin == Origin.ROLLOUT).all()
    assert [row.completion[0] - 10 for row in tried.rows] == tried.flat.fields["group"].tolist()


@pytest.mark.parametrize(("order", "expected"), [("newest", [[2, 3, 0], [4, 5, 6]]), ("oldest", [[0, 1, 2], [3, 4, 5]])])
@pytest.mark.parametrize("step", ["own", "same"])
def test_as_many_as_the_buffer_is_large_are_trained_on_at_once(order: Any, expected: list[list[int]], step: Any) -> None:
    inner = Listed(*(all_wrong(2, first=first, steps=2) for first in (0, 2)), all_wrong(4, first=4, steps=2))
    buffered = UnsolvedCollector(inner, Buffer(3, order, step))
    made = [buffered.collect(None, k, 0.5) for k in range(3)]
    assert [len(one.steps) for one in made] == ([2, 3, 3] if step == "own" else [2, 2, 2])
    assert [one.metrics["rollout/waiting"] for one in made] == [2.0, 1.0, 2.0]
    assert all(one.metrics["rollout/unsolved"] == 1 for one in made)
    assert not any(demonstrated(made[0], k) for k in range(2)) and not any(demonstrated(one, 0) for one in made)
    for one, questions in zip(made[1:], expected, strict=True):
        assert demonstrated(one, -1) == [f"question {question}" for question in questions]
        rollouts = len(one.steps[0]) if step == "same" else 0
        assert len(one.steps[-1]) == 3 + rollouts
    rows, groups = len(made[1].rows), made[1].flat.fields["group"]
    assert len(set(groups[rows - 3 :].tolist())) == 3 and not {*groups[rows - 3 :].tolist()} & {*groups[: rows - 3].tolist()}


def test_it_goes_on_from_what_it_keeps() -> None:
    def made(by: UnsolvedCollector, first: int) -> Collection:
        by._inner = Listed(all_wrong(2, first=first))
        return by.collect(None, 0, 0.5)

    buffered = UnsolvedCollector(Listed(), Buffer(3))
    made(buffered, 0)
    state, kept = json.loads(json.dumps(buffered.state())), buffered.kept()
    expected = made(buffered, 2)
    assert kept is not None and len(kept.rows) == 2 and buffered.state() == {"own_steps": 1}
    other = UnsolvedCollector(Listed(), Buffer(3))
    for again in (other, buffered):  # in another process; and after what was begun was broken off
        again.restore(state, kept=kept)
        assert demonstrated(made(again, 2), -1) == demonstrated(expected, -1) == ["question 2", "question 3", "question 0"]
        assert again.state() == {"own_steps": 1}


def test_steps_without_questions_pass_over_none(make_trainer: MakeTrainer) -> None:
    """The questions of a run are asked in the order of one without a buffer, and of no step twice."""

    def asked(trainer: PostTrainer) -> list[str]:
        collector, found = trainer.run_state.collector, list[str]()
        honest = collector.collect

        def noted(*arguments: Any) -> Collection:
            made = honest(*arguments)
            found.extend(dict.fromkeys(made.where[row] for row in range(len(made.rows)) if made.batch.origin[row, 0] == 0))
            return made

        collector.collect = noted  # type: ignore[method-assign]
        trainer.train()
        return found

    options = {"rollouts": 2, "buffer_size": 1}
    plain = asked(make_trainer("grpo", options={"rollouts": 2}, rows_per_step=4, max_steps=4))
    buffered = asked(make_trainer("relift", options=options, rows_per_step=4, max_steps=4, output="other"))
    assert 2 <= len(buffered) < len(plain) and buffered == plain[: len(buffered)]


def lines(trainer: PostTrainer) -> list[dict[str, float]]:
    text = (Path(str(trainer.args.output_dir)) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_step_of_its_own_is_one_of_the_run(make_trainer: MakeTrainer) -> None:
    """It has a line, a learning rate and an update, and nothing of rollouts."""
    options = {"rollouts": 2, "updates": 2, "buffer_size": 2, "clip_low": 0.1}
    schedule = {"lr_scheduler_type": "linear", "learning_rate": 0.1, "max_steps": 6}
    trainer = make_trainer("relift", options=options, rows_per_step=4, **schedule)
    trainer.train()
    steps = lines(trainer)
    own = [step for step in steps if step["train/demonstrated"] == 1]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6] and 1 <= len(own) <= 2
    assert [step["learning_rate"] for step in steps] == pytest.approx([0.1 * (6 - k) / 6 for k in range(6)])
    for step in own:
        assert step["loss"] == step["loss/sft"] == step["nll"] > 0 == step["loss/policy"]
        assert step["grad_norm"] > 0 and not any(name.startswith("rollout/") for name in step)
        assert "rollout/unsolved" in steps[int(step["step"]) - 3]


def test_without_what_was_kept_no_run_goes_on(make_trainer: MakeTrainer) -> None:
    options = {"options": {"rollouts": 2, "buffer_size": 50}, "rows_per_step": 8}
    trainer = make_trainer("relift", save_strategy="steps", save_steps=2, **options)
    trainer.train()
    folder = Path(str(trainer.args.output_dir)) / "checkpoint-2"
    (folder / "kept.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not whole: its kept\.safetensors"):
        make_trainer("relift", **options).train(resume_from_checkpoint=str(folder))


def test_a_buffer_of_one_within_the_step_is_hpt_with_gate_0_but_for_failed_rollouts_in_n() -> None:
    groups = [((WRONG, RIGHT), True), ((WRONG, WRONG), True), ((RIGHT, RIGHT), True), ((RIGHT, WRONG, WRONG), True)]
    whole = sampled(groups)
    collection = UnsolvedCollector(Listed(whole), Buffer(1, "newest", "same")).collect(None, 0, 0.5)
    shown = [row for row, origin in enumerate(whole.batch.origin[:, 0].tolist()) if origin == Origin.DEMO]
    tried = [row for row in range(len(whole.rows)) if row not in shown]
    failed = [row for row in tried if whole.where[row] == "question 1"]
    policy = -torch.rand(len(whole.rows), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradient(algorithm: Algorithm, rows: Collection, order: list[int]) -> torch.Tensor:
        logp = policy[order].requires_grad_()
        loss = policy_gradient_loss(algorithm, logp, algorithm.prepare(rows.batch)).loss
        found = torch.zeros_like(policy)
        found[order] = torch.autograd.grad(loss, logp)[0]
        return found

    ours = gradient(build_algorithm("relift", rollouts=3), collection, [*tried, shown[1]])
    hpt = gradient(build_algorithm("hpt", rollouts=3, gate=0, max_tokens=3), whole, list(range(len(whole.rows))))
    assert torch.equal(ours[shown], hpt[shown]) and ours[shown[1]].any() and not ours[[shown[0], *shown[2:]]].any()
    tokens = int(whole.flat.lengths[tried].sum())
    torch.testing.assert_close(ours[tried] * tokens, hpt[tried] * 3 * (len(tried) - len(failed)), rtol=0, atol=1e-14)
    assert hpt[tried].any() and not ours[failed].any()


def test_a_buffer_needs_demonstrations_and_verdicts() -> None:
    with pytest.raises(ValueError, match="a buffer is of questions without a right rollout"):
        Needs(scope="token", rollouts=2, memory=Buffer(), demonstration="row")


def test_what_nobody_can_count_is_refused(make_trainer: MakeTrainer, posttrain: Command) -> None:
    with pytest.raises(SetupError, match="adds optimizer steps that nobody knows beforehand: set max_steps"):
        make_trainer("relift", options={"rollouts": 2}, rows_per_step=4, max_steps=-1, num_train_epochs=1)
    values: dict[str, Any] = {
        "algorithm": {"name": "relift", "correction": {}},
        "data": {"train": {"task": "running_totals", "rows": 12}},
        "rollout": {"questions_per_step": 2, "n": 2},
    }
    code, _, err = posttrain("run", recipe(**values, training={"epochs": 1}), "--dry-run")
    assert code == 2 and "training.epochs: relift adds an optimizer step whenever its buffer is full" in err
    ahead = {"engine": "vllm", "vllm": {"mode": "server"}, "ahead": 1}
    code, _, err = posttrain("run", recipe(**{**values, "rollout": {**values["rollout"], **ahead}}), "--dry-run")
    assert code == 2 and "rollout.ahead: relift adds an optimizer step" in err
    same = {**values, "algorithm": {"name": "relift", "sft_step": "same"}}
    code, out, err = posttrain("run", recipe(**same, training={"epochs": 1}), "--dry-run")
    assert code == 0 and "128 at a time, the newest first, within the step on rollouts" in in_cells(out), err
