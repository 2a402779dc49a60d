"""Rollouts that go on from the head of a demonstration: hints that a group shares, and branches where a group fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
import torch

from posttrain import Algorithm, Needs, Origin, PostTrainer, Question, Request, Sampling, Weighted, build_algorithm
from posttrain.data.rows import Problem
from posttrain.estimator.parts import plan
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.rollouts import RolloutCollector
from tiny import make_model, parameters
from train.collect.test_rollouts import END, TABLE, Judge, Letters, Recording

N = 4
SHOWN = (*range(5, 20), END)
UNHEARD_OF = TABLE.clone()
UNHEARD_OF[:, 5:20] = -60.0  # nobody samples what is demonstrated
HEADS = (2, 4, 6, 8, 10, 12, 14)
"""Eighths of it."""
PROBLEMS = [
    Problem([2 + i, 3], {"prompt": f"q{i}"}, f"question {i}", None if i == 2 else SHOWN, cuts=(3, 4, 9) if i == 1 else ())
    for i in range(4)
]


def collected(algorithm: Algorithm, judge: Judge, *, progress: float = 0.0, step: int = 0, engine: Any = None) -> Collection:
    sampling, rewards = Sampling(max_tokens=20, seed=3), [Weighted(judge, verdict=True)]
    made = RolloutCollector(PROBLEMS, algorithm, engine or Recording(), rewards, sampling, Letters(), questions=4)
    return made.collect(UNHEARD_OF, step, progress)


def heads(collection: Collection) -> dict[str, set[int]]:
    """How many tokens the rows of each question go on from."""
    lengths = (collection.batch.origin == Origin.DEMO).sum(-1).tolist()
    found: dict[str, set[int]] = {}
    for where, length in zip(collection.where, lengths, strict=True):
        found.setdefault(where, set()).add(length)
    return found


def length(text: str, tokens: Sequence[int], finished: bool) -> float:
    return float(len(tokens))


def begins(count: int) -> Judge:
    """Right is what begins with so many tokens of the demonstration."""
    return Judge(lambda text, tokens, finished: float(tuple(tokens[:count]) == SHOWN[:count]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hinted(Algorithm):
    """Every rollout goes on from two tokens."""

    def plan(self, question: Question, progress: float, rng: Random) -> list[Request]:
        return [Request(question.prompt, (7, 8), N, question.id)]


def test_rewards_are_of_all_rows_where_each_goes_on_from_a_prefix() -> None:
    base = build_algorithm("grpo", rollouts=N)
    made = Hinted(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})
    collection = collected(made, Judge(length))
    batch, metrics = collection.batch, collection.metrics
    assert batch.reward is not None and metrics["reward/mean"] == pytest.approx(float(batch.reward.mean()))
    assert metrics["rollout/demonstrated"] == 1 and metrics["rollout/prefix_length"] == 2
    assert metrics["rollout/failed_grades"] == metrics["rollout/ungraded"] == 0
    assert metrics["rollout/correct"] == metrics["rollout/correct_after_prefix"] == 1


def uft(**options: Any) -> Algorithm:
    return build_algorithm("uft", rollouts=N, **options)


def test_all_rollouts_of_a_question_share_its_hint() -> None:
    collection = collected(uft(low=0.5, high=0.5), Judge(length))
    batch, found = collection.batch, heads(collection)
    assert batch.tokens is not None
    assert all(len(lengths) == 1 for lengths in found.values()) and found["question 2"] == {0}
    assert len(collection.rows) == 4 * N and max(map(max, found.values())) > 0
    for tokens, origin in zip(batch.tokens.tolist(), batch.origin.tolist(), strict=True):
        shown = origin.count(Origin.DEMO)
        assert tuple(tokens[:shown]) == SHOWN[:shown] and not any(origin[shown:])


@pytest.mark.parametrize(("high", "progress"), [(0.0, 0.0), (1.0, 0.6), (1.0, 1.0)])
def test_without_hints_the_rollouts_are_grpos(high: float, progress: float) -> None:
    own = collected(uft(low=0.0, high=high), Judge(length), progress=progress, step=3).batch
    grpo = collected(build_algorithm("grpo", rollouts=N), Judge(length), progress=progress, step=3).batch
    assert own.tokens is not None and grpo.tokens is not None
    assert torch.equal(own.tokens, grpo.tokens) and torch.equal(own.origin, grpo.origin)


QUESTION = Question(7, (1, 2), SHOWN)


def shown(question: Question, count: plan.Count, chunks: int = 5, progress: float = 0.0) -> int:
    (request,) = plan.hinted(question, N, progress, Random(0), chunks=chunks, count=count)
    assert request.n == N and request.question == question.id and tuple(request.prefix) == SHOWN[: len(request.prefix)]
    return len(request.prefix)


def exactly(number: int) -> plan.Count:
    return lambda chunks, progress, rng: min(number, chunks)


def test_chunks_are_equal_parts_of_tokens_or_of_steps_and_never_all() -> None:
    assert [shown(QUESTION, exactly(k)) for k in range(7)] == [0, 3, 6, 10, 13, 15, 15]
    stepped = dataclasses.replace(QUESTION, cuts=(3, 4, 9))
    assert [shown(stepped, exactly(k)) for k in range(5)] == [0, 3, 4, 9, 15]
    assert [shown(stepped, exactly(k), chunks=2) for k in range(3)] == [0, 4, 15]
    assert [shown(dataclasses.replace(QUESTION, demonstration=SHOWN[:3]), exactly(k)) for k in range(4)] == [0, 1, 2, 2]
    for nothing in (None, (), (5,)):
        assert shown(dataclasses.replace(QUESTION, demonstration=nothing), exactly(5)) == 0


def test_a_hint_ends_where_a_step_of_the_data_does() -> None:
    seen = {max(heads(collected(uft(low=0.5, high=0.5), Judge(length), step=step))["question 1"]) for step in range(12)}
    assert seen <= {0, 3, 4, 9, 15} and len(seen) > 2


def counts(count: plan.Count, progress: float) -> list[int]:
    return [count(5, progress, Random(i)) for i in range(1500)]


def test_hints_become_shorter_by_a_cosine_and_end() -> None:
    falling = partial(plan.binomial, low=0.1, high=0.9, until=0.6)
    for progress, chance in [(0.0, 0.9), (0.15, 0.5 + 0.4 * 0.5**0.5), (0.3, 0.5), (0.45, 0.5 - 0.4 * 0.5**0.5)]:
        drawn = torch.tensor(counts(falling, progress)).double()
        assert float(drawn.mean()) == pytest.approx(5 * chance, abs=0.12)
        assert float(drawn.var()) == pytest.approx(5 * chance * (1 - chance), abs=0.18)
    assert set(counts(falling, 0.6)) == set(counts(falling, 1.0)) == {0}


def test_any_number_of_chunks_or_one_fewer_in_each_stage() -> None:
    uniform = counts(plan.uniform, 0.9)
    assert all(uniform.count(k) == pytest.approx(1500 / 6, rel=0.2) for k in range(6))
    staged = partial(plan.staged, until=0.6)
    assert [staged(5, progress, Random(0)) for progress in (0.0, 0.09, 0.11, 0.29, 0.31, 0.49, 0.51, 0.6, 1.0)] == [
        5, 5, 4, 3, 2, 1, 0, 0, 0,
    ]  # fmt: skip


def bread(**options: Any) -> Algorithm:
    return build_algorithm("bread", rollouts=N, **options)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 14])
def test_a_question_that_fails_goes_on_from_the_shortest_head_that_works(count: int) -> None:
    engine = Recording()
    collection = collected(bread(), begins(count), engine=engine)
    expected = min(head for head in HEADS if head >= count)
    assert heads(collection) == {f"question {i}": {0 if i == 2 else expected} for i in range(4)}
    assert len(engine.asked) == 4 and all(request.n == N for requests, _ in engine.asked for request in requests)
    batch, metrics = collection.batch, collection.metrics
    assert batch.tokens is not None and batch.correct is not None
    for i, where in enumerate(collection.where):
        assert bool(batch.correct[i]) == (where != "question 2")
        assert collection.rows[i].completion.tolist()[:count] == list(SHOWN[:count]) or where == "question 2"
    assert metrics["rollout/branched"] == 0.75 and metrics["rollout/unsolved_after_branches"] == 0.25
    assert metrics["rollout/branch_length"] == expected
    assert metrics["rollout/correct"] == 0  # of what was sampled without help
    asked = [request.question for requests, _ in engine.asked for request in requests]
    assert len(set(asked)) == len(asked) == 4 + 3 * 3


def test_a_question_that_is_solved_without_help_or_by_no_head_keeps_its_rollouts() -> None:
    plain = collected(build_algorithm("grpo", rollouts=N), Judge(length)).batch
    for judge, rounds in [(Judge(length), 1), (begins(16), 4), (Judge(lambda *_: None), 1)]:
        judge_all = Weighted(judge, max_error_rate=1.0, verdict=True)
        engine = Recording()
        sampling = Sampling(max_tokens=20, seed=3)
        made = RolloutCollector(PROBLEMS, bread(), engine, [judge_all], sampling, Letters(), questions=4)
        own = made.collect(UNHEARD_OF, 0, 0.0)
        assert own.batch.tokens is not None and plain.tokens is not None
        assert torch.equal(own.batch.tokens, plain.tokens) and not own.batch.origin.any()
        assert len(engine.asked) == rounds and own.metrics["rollout/branched"] == 0


def test_groups_stay_in_their_order_and_a_collection_is_a_function_of_the_step() -> None:
    some = Judge(lambda text, tokens, finished: float(tokens[0] == 5 or len(tokens) < 2))
    one, again = (collected(bread(), some, step=4) for _ in range(2))
    assert one.batch.tokens is not None and again.batch.tokens is not None
    assert torch.equal(one.batch.tokens, again.batch.tokens) and one.metrics["rollout/branched"] < 0.75
    plain, found = collected(build_algorithm("grpo", rollouts=N), some, step=4), heads(one)
    assert one.where == plain.where and 0 < sum(lengths == {HEADS[0]} for lengths in found.values()) < 3
    for own, other in zip(one.rows, plain.rows, strict=True):
        helped = 5 in own.completion[:1]
        assert helped or own.completion.tolist() == other.completion.tolist()


def test_branches_are_of_the_weights_that_the_collection_is_of() -> None:
    engine, rewards = Recording(), [Weighted(begins(3), verdict=True)]
    sampling = Sampling(max_tokens=20, seed=3)
    made = RolloutCollector(PROBLEMS, bread(), engine, rewards, sampling, Letters(), questions=4)
    engine.sync(UNHEARD_OF, 1)
    ahead = made.sampled(3, 0.0, version=1, synced=0.0)  # as a sampler beside training does
    assert ahead.batch.version is not None and (ahead.batch.version == 1).all() and len(engine.asked) == 4
    assert ahead.batch.tokens is not None and ahead.metrics["rollout/branched"] == 0.75
    own = collected(bread(), begins(3), step=3).batch
    assert own.tokens is not None and torch.equal(ahead.batch.tokens, own.tokens)


def test_the_head_carries_no_loss() -> None:
    algorithm = bread()
    batch = collected(algorithm, Judge(lambda text, tokens, finished: float(tokens[0] == 5 and finished))).batch
    mask, shown = algorithm.prepare(batch).loss_mask, batch.origin == Origin.DEMO
    assert shown.any() and not mask[shown].any()
    assert mask[batch.loss_mask & ~shown].all()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"resample": True}, "branches and resample both replace groups"),
        ({"demonstration": "row"}, "goes on from"),
        ({"verdict": False}, "which rollouts are right"),
    ],
)
def test_what_branches_cannot_do_is_refused(asked: dict[str, Any], says: str) -> None:
    needs: dict[str, Any] = {"scope": "token", "rollouts": N, "verdict": True, "demonstration": "prefix", **asked}
    with pytest.raises(ValueError, match=says):
        Needs(branches=True, **needs)


@pytest.mark.parametrize("average", ["sequence_mean", pytest.param("token", marks=pytest.mark.system)])
def test_uft_without_hints_trains_as_grpo_does(average: str, make_trainer: Callable[..., PostTrainer]) -> None:
    same = {"rollouts": 4, "kl_coef": 0.1, "entropy_coef": 0.1}
    none = {"low": 0.0, "high": 0.0, "average": average, **same}
    plain = ("grpo", same) if average == "sequence_mean" else ("dapo", {**same, "clip_high": 0.2, "dynamic_sampling": False})
    trained = []
    for name, options in [("uft", none), plain]:
        trainer = make_trainer(name, options=options, model=make_model(), output=name, rows_per_step=8, max_steps=2)
        start = parameters(trainer.model)
        trainer.train()
        trained.append(parameters(trainer.model))
        assert not torch.equal(start, trained[-1])
    assert torch.equal(*trained)


def test_each_part_of_each_question_has_samples_of_its_own() -> None:
    asked: dict[tuple[int, int], int] = {}
    for number, length in enumerate((3, 16, 8, 40, 24, 9)):
        question = Question(number, (1,), demonstration=range(length))
        for right in (False, True):
            worked: dict[int, bool] = {}
            while (request := plan.branch(question, N, worked)) is not None:
                asked[number, len(request.prefix)] = request.question
                worked[len(request.prefix)] = right
    assert len({*asked.values()}) == len(asked) > 20
