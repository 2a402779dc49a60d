"""Pairs of what was sampled: each rule on a hand-made collection, a step without any, and training on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import PostTrainer, build_algorithm
from posttrain.data.rows import Row
from posttrain.errors import RecipeError
from posttrain.estimator import Origin
from posttrain.estimator.needs import PairRule
from posttrain.estimator.view import View
from posttrain.train.collect.arrays import from_arrays, to_arrays
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.flat import Flat
from posttrain.train.collect.over.pairs import paired
from recipes import Command, recipe
from tiny import parameters

REWARDS = ((0.0, 1.0, 0.5, 1.0), (2.0, 2.0, 2.0, 2.0))
"""Of two questions; the last row of each is its demonstration, where there is one."""


def rollouts(
    rewards: tuple[tuple[float, ...], ...] = REWARDS,
    *,
    ungraded: tuple[int, ...] = (),
    muted: tuple[int, ...] = (),
    same: tuple[int, ...] = (),
    demonstrated: bool = False,
    steps: int = 1,
) -> Collection:
    """Row i has i % 3 + 1 tokens 10 + i; the rows of `same` are one text."""
    rows, size = [(i, reward) for i, reward in enumerate(r for group in rewards for r in group)], len(rewards[0])
    tokens = [np.full(1 if i in same else i % 3 + 1, 9 if i in same else 10 + i, np.int32) for i, _ in rows]
    lengths = np.array([len(one) for one in tokens])
    shown = np.array([demonstrated and i % size == size - 1 for i, _ in rows])
    each = len(rewards) // steps
    fields = {
        "loss_mask": torch.ones(int(lengths.sum()), dtype=torch.bool),
        "tokens": torch.from_numpy(np.concatenate(tokens)),
        "origin": torch.from_numpy(np.where(np.repeat(shown, lengths), Origin.DEMO, Origin.ROLLOUT).astype(np.int8)),
        "group": torch.tensor([i // size for i, _ in rows]),
        "reward": torch.tensor([reward for _, reward in rows], dtype=torch.float64),
        "reward_mask": torch.tensor([i not in ungraded for i, _ in rows]),
    }
    return Collection(
        rows=tuple(Row(np.array([1], np.int32), one, np.ones(len(one), np.bool_)) for one in tokens),
        units=tuple((i,) for i, _ in rows),
        steps=tuple(tuple(i for i, _ in rows if i // size // each == k) for k in range(steps)),
        where=tuple(f"row {i // size}" for i, _ in rows),
        sources=tuple(f"source {i // size % 2}" for i, _ in rows),
        flat=Flat(lengths, fields, 0.5),
        muted=muted,
        metrics={"rollout/length": 2.0},
    )


def pairs_of(collection: Collection) -> list[tuple[int, int]]:
    """By the rows that they were made of, as their tokens say; those that carry loss."""
    batch = collection.batch
    assert batch.tokens is not None and batch.chosen is not None
    first = (batch.tokens[:, 0] - 10).tolist()
    return [(first[a], first[b]) for a, b in collection.units if batch.loss_mask[a].any() and batch.loss_mask[b].any()]


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        (PairRule("best_worst"), {}, {(1, 0)}),  # equal rewards are no pair
        (PairRule("all"), {}, {(1, 0), (1, 2), (2, 0), (3, 0), (3, 2)}),
        (PairRule("best_worst"), {"ungraded": (0,)}, {(1, 2)}),
        (PairRule("best_worst"), {"muted": (0, 1)}, {(3, 2)}),
        (PairRule("demonstration"), {"demonstrated": True}, {(3, 0), (3, 1), (3, 2), (7, 4), (7, 5), (7, 6)}),
        (PairRule("demonstration", 1), {"demonstrated": True, "same": (0, 3)}, {(-1, 1), (7, 4)}),  # not what it says itself
        (PairRule("fixed_rejected", 1), {"demonstrated": True}, {(1, 3), (4, 7)}),
        (
            PairRule("fixed_rejected"),
            {"demonstrated": True, "ungraded": (3,)},
            {(1, 3), (2, 3), (0, 3), (4, 7), (5, 7), (6, 7)},
        ),
    ],
)
def test_a_rule_makes_these_pairs(rule: PairRule, given: dict[str, Any], expected: set[tuple[int, int]]) -> None:
    made = paired(rollouts(**given), rule, "0/0")
    found = pairs_of(made)
    assert set(found) == expected and len(found) == len(expected)
    assert made.flat.fields["chosen"].tolist() == [True, False] * (len(made.rows) // 2)
    assert "reward" not in made.flat.fields and made.metrics["rollout/length"] == 2.0
    assert made.metrics["pairs/per_question"] == len(expected) / 2
    for row, span in ((row, made.flat.span(i)) for i, row in enumerate(made.rows)):
        assert np.array_equal(row.completion, made.flat.fields["tokens"][span].numpy())


def test_a_part_of_all_pairs_is_another_one_at_each_step() -> None:
    part = [pairs_of(paired(rollouts(), PairRule("all", 2), f"0/{step}")) for step in range(12)]
    assert all(len(pairs) == 2 for pairs in part) and len(set(map(tuple, part))) > 3
    assert part[0] == pairs_of(paired(rollouts(), PairRule("all", 2), "0/0"))


def test_a_step_of_which_no_question_has_a_pair_is_silent() -> None:
    made = paired(rollouts(steps=2), PairRule("best_worst"), "0/0")
    assert made.steps == ((0,), (1,)) and pairs_of(made) == [(1, 0)] and len(made.rows) == 4
    counts = build_algorithm("dpo", rollouts=4, pairs={}).counts(made.flat.batch([2, 3]))
    assert counts["dpo"] == 0 and made.metrics["pairs/questions_without"] == 0.5 and made.metrics["pairs/reward_gap"] == 1.0


def test_what_was_sampled_and_is_in_no_pair_is_counted() -> None:
    whole = rollouts(demonstrated=True)
    sampled = sum(len(row) for i, row in enumerate(whole.rows) if i % 4 != 3)
    for rule in (PairRule("best_worst"), PairRule("all"), PairRule("demonstration", 1)):
        made = paired(dataclasses.replace(whole, aside=5), rule, "0/0")
        of_pairs = {int(row.completion[0]) - 10: len(row) for row in made.rows}
        assert made.aside == 5 + sampled - sum(length for i, length in of_pairs.items() if i % 4 != 3)
    assert from_arrays(to_arrays(made)).aside == made.aside > 5


def test_two_completions_of_the_start_model_pull_apart_with_half_of_beta() -> None:
    """Of two samples at pi = ref, A = ±beta/2: the sign of their difference, as in RLOO (arXiv:2402.04792)."""
    algorithm, batch = build_algorithm("dpo", rollouts=2, pairs={}), paired(rollouts(), PairRule(), "0/0").batch
    logp = -torch.rand(batch.loss_mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    [term] = algorithm.terms
    weights = term.estimator.weights(View.of(batch.replace(ref_logp=logp), logp, batch.loss_mask)).value
    assert torch.allclose(weights[:2], torch.tensor([[0.05], [-0.05]], dtype=torch.float64) * batch.loss_mask[:2])


@pytest.mark.parametrize("options", [{"rollouts": 2}, {"rollouts": 4, "updates": 2}, {"rollouts": 4, "name": "ipo"}])
def test_it_trains_and_goes_on_where_it_ended(make_trainer: Callable[..., PostTrainer], options: dict[str, Any]) -> None:
    name, given = options.get("name", "dpo"), {key: value for key, value in options.items() if key != "name"}
    rows = {"options": {**given, "pairs": {"rule": "all", "at_most": 2}}, "rows_per_step": 8, "save_strategy": "steps"}
    whole = make_trainer(name, output="whole", save_steps=2, **rows)
    whole.train()
    other = make_trainer(name, output="other", **rows)
    other.train(resume_from_checkpoint=str(Path(str(whole.args.output_dir)) / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(other.model))


def test_a_steps_tokens_are_of_all_that_was_sampled_once(make_trainer: Callable[..., PostTrainer]) -> None:
    given = {"rollouts": 4, "updates": 2, "pairs": {"rule": "best_worst"}}
    trainer = make_trainer("dpo", options=given, rows_per_step=8, max_steps=2)
    made = trainer.run_state.collector.collect(trainer.model, 0, 0.0)
    trainer.train()
    lines = (Path(str(trainer.args.output_dir)) / "metrics.jsonl").read_text().splitlines()
    spent = [json.loads(line)["step/tokens"] for line in lines]
    read = [sum(len(made.rows[row]) for unit in step for row in made.units[unit]) for step in made.steps]
    assert made.aside > 0 and spent == [read[0] + made.aside, read[1]]


ONLINE: dict[str, Any] = {
    "algorithm": {"name": "dpo"},
    "rollout": {"questions_per_step": 2, "n": 4, "max_tokens": 6, "pairs": {"rule": "best_worst"}, "log_completions": 0},
    "training": {"max_steps": 2},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rollout": {"n": 2, "max_tokens": 6}}, "only evaluations sample, by eval.samples, and pairs by rollout.pairs"),
        ({"rollout": {**ONLINE["rollout"], "n": 1}}, "1 completions of a question are no pair"),
        ({"algorithm": {"name": "grpo"}}, "rollout.pairs: grpo is no loss of preference pairs"),
        ({"algorithm": {"name": "dpo", "rollouts": 3}}, "algorithm.rollouts: it follows from rollout"),
        ({"rollout": {**ONLINE["rollout"], "pairs": {"rule": "worst"}}}, "rollout.pairs.rule"),
        ({"algorithm": {"name": "dpo", "pairs": {"rule": "all"}}}, "algorithm.pairs: it follows from rollout"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    posttrain: Command, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    code, _, err = posttrain("validate", recipe(**{**ONLINE, **changes}))
    assert code == 2 and told in err


def test_rollouts_without_a_rule_are_no_pairs() -> None:
    with pytest.raises(RecipeError, match="say how"):
        build_algorithm("dpo", rollouts=4)


def test_a_recipe_runs_on_pairs_of_a_demonstration_and_of_a_rejected_column(posttrain: Command, tmp_path: Path) -> None:
    for rule in ("best_worst", "demonstration", "fixed_rejected"):
        pairs = {**ONLINE["rollout"], "pairs": {"rule": rule}}
        code, _, err = posttrain("run", recipe(**{**ONLINE, "rollout": pairs, "output_dir": rule}))
        lines = (tmp_path / rule / "metrics.jsonl").read_text().splitlines()
        assert code == 0, err
        assert any('"pairs/per_question"' in line for line in lines)
