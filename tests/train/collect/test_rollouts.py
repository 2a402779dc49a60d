"""From questions to batches: order, seeds, rewards, masks, replaced groups, and engines that sample from other weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import (
    Algorithm,
    Batch,
    Completion,
    Group,
    Judgement,
    Origin,
    Question,
    Request,
    Sampling,
    Weighted,
    build_algorithm,
)
from posttrain.data.rows import Example, Problem, Row
from posttrain.errors import EngineError, SetupError
from posttrain.train.collect.demonstrations import DemonstrationCollector
from posttrain.train.collect.order import Mixed, order_of
from posttrain.train.collect.over.beside import BesideDemonstrations
from posttrain.train.collect.rollouts import RolloutCollector
from rollout.engine_contract import Scripted

TABLE = 2 * torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
END, N, QUESTIONS = 1, 4, 3
TABLE[:, END] += 4  # one completion in two ends by itself
PROBLEMS = [Problem([2 + i, 3], {"prompt": f"q{i}", "answer": str(i)}, f"question {i}") for i in range(7)]


class Letters:
    """The tokenizer of the scripted engine: a letter for each token, none for the end."""

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(97 + token) for token in tokens if token != END or not skip_special_tokens)


class Judge:
    """A reward made of a function of (text, tokens, finished)."""

    def __init__(self, score: Callable[[str, Sequence[int], bool], float | None], name: str = "judge") -> None:
        self.name, self._score, self.seen = name, score, list[Group]()

    def judge(self, group: Group) -> list[Judgement]:
        self.seen.append(group)
        scores = map(self._score, group.completions, group.tokens, group.finished)
        return [Judgement(score, None if score is None else score > 0) for score in scores]

    def close(self) -> None:
        pass


def length(text: str, tokens: Sequence[int], finished: bool) -> float:
    return float(len(tokens))


class Recording(Scripted):
    """Notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(TABLE, END, Letters().decode, 100)
        self.asked: list[tuple[list[Request], Sampling]] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        self.asked.append((list(requests), sampling))
        return super().generate(requests, sampling)


def collector(
    algorithm: str | Algorithm = "grpo",
    *rewards: Judge | Weighted,
    engine: Any = None,
    updates: int = 1,
    max_tokens: int = 6,
    problems: Sequence[Problem] = PROBLEMS,
    **options: Any,
) -> RolloutCollector:
    made = build_algorithm(algorithm, rollouts=N, updates=updates) if isinstance(algorithm, str) else algorithm
    entries = [one if isinstance(one, Weighted) else Weighted(one) for one in rewards or (Judge(length),)]
    sampling = Sampling(max_tokens=max_tokens, seed=3)
    return RolloutCollector(
        problems, made, engine or Recording(), entries, sampling, Letters(), questions=QUESTIONS, **options
    )  # fmt: skip


def fields(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}


def test_rows_and_batch_say_the_same() -> None:
    collection = collector(updates=2).collect(TABLE, 4, 0.25)
    batch = collection.batch
    assert batch.tokens is not None and batch.behavior_logp is not None and batch.reward is not None
    assert len(collection.rows) == 2 * QUESTIONS * N and batch.progress == 0.25
    for i, row in enumerate(collection.rows):
        tokens, last = row.completion.tolist(), int(row.prompt[-1])
        assert batch.tokens[i, : len(tokens)].tolist() == tokens
        assert batch.loss_mask[i].tolist() == [t < len(tokens) for t in range(batch.loss_mask.shape[1])]
        logp = TABLE.log_softmax(-1)[[last, *tokens[:-1]], tokens]
        torch.testing.assert_close(batch.behavior_logp[i, : len(tokens)], logp, rtol=0, atol=1e-5)
        assert float(batch.reward[i]) == len(tokens)
    assert batch.group.tolist() == [i // N for i in range(2 * QUESTIONS * N)]
    assert (batch.origin == Origin.ROLLOUT).all()
    assert collection.where == tuple(collection.where[i - i % N] for i in range(len(collection.where)))


def test_a_greedy_answer_is_a_baseline_and_no_row() -> None:
    """It is judged with the others, is the engine's own at temperature 0, and is in no mean."""
    judge, engine = Judge(length), Recording()
    made = build_algorithm("remax", rollouts=2).prepare
    collection = collector(build_algorithm("remax", rollouts=2), judge, engine=engine).collect(TABLE, 0, 0.0)
    batch, [(requests, _)] = collection.batch, engine.asked
    assert len(collection.rows) == 2 * QUESTIONS and [request.n for request in requests] == [2, 1] * QUESTIONS
    greedy = engine.generate([Request(one.prompt) for one in requests[::2]], Sampling(max_tokens=6, temperature=0.0))
    worth = torch.tensor([float(len(one.tokens)) for [one] in greedy]).double()
    assert batch.baseline is not None and batch.baseline.tolist() == worth.repeat_interleave(2).tolist()
    assert [(len(group.completions), group.beside) for group in judge.seen] == [(3, 1)] * QUESTIONS
    lengths = [float(len(row.completion)) for row in collection.rows]
    assert collection.metrics["rollout/length"] == collection.metrics["reward/mean"] == pytest.approx(np.mean(lengths))
    assert collection.aside == sum(len(one.prompt) for one in requests[::2]) + int(worth.sum())
    assert collection.metrics["reward/greedy"] == collection.metrics["rollout/greedy_length"] == float(worth.mean())
    advantage = made(batch).advantage
    assert advantage is not None and torch.equal(advantage[:, 0], torch.tensor(lengths) - batch.baseline)


def test_a_policy_without_a_choice_has_no_advantage_over_its_greedy_answer() -> None:
    certain = build_algorithm("remax", rollouts=3)
    engine = Scripted(1e4 * TABLE, END, Letters().decode, 100)
    collection = collector(certain, engine=engine).collect(1e4 * TABLE, 0, 0.0)
    advantage = certain.prepare(collection.batch).advantage
    assert advantage is not None and not advantage.any()
    assert collection.metrics["rollout/equal_groups"] == 1


def test_rows_of_a_question_whose_greedy_answer_has_no_grade_carry_no_loss() -> None:
    class Once(Judge):
        def judge(self, group: Group) -> list[Judgement]:
            judged = super().judge(group)
            return [*judged[:-1], Judgement(None)] if len(self.seen) == 1 else judged

    remax = build_algorithm("remax", rollouts=2)
    batch = remax.prepare(collector(remax, Once(length)).collect(TABLE, 0, 0.0).batch)
    assert batch.loss_mask.any(-1).tolist() == [False, False, True, True, True, True]


def test_answers_at_another_temperature_are_not_trained() -> None:
    def hot(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
        return [Request(question.prompt, n=n - 1, question=question.id), Request(question.prompt, temperature=0.5)]

    with pytest.raises(SetupError, match=r"plans answers at temperature 0.5, and log-probs are of 1"):
        collector(dataclasses.replace(build_algorithm("grpo", rollouts=N), planner=hot)).collect(TABLE, 0, 0.0)
    remax = build_algorithm("remax", rollouts=N)
    with pytest.raises(SetupError, match="must ask for one answer at temperature 0"):
        collector(dataclasses.replace(remax, planner=hot)).collect(TABLE, 0, 0.0)


def test_steps_share_the_questions_out_and_groups_stay_whole() -> None:
    collection = collector(updates=2).collect(TABLE, 0, 0.0)
    assert [sorted(unit for unit in step) for step in collection.steps] == [list(range(12)), list(range(12, 24))]
    assert collection.units == tuple((i,) for i in range(24))


def test_a_collection_is_a_function_of_the_step() -> None:
    def same(a: Any, b: Any) -> bool:
        one, other = fields(a.batch), fields(b.batch)
        return all(not isinstance(v, torch.Tensor) or torch.equal(v, other[k]) for k, v in one.items())

    first = collector()
    early, late = first.collect(TABLE, 0, 0.0), first.collect(TABLE, 5, 0.0)
    assert same(collector().collect(TABLE, 5, 0.0), late) and same(first.collect(TABLE, 0, 0.0), early)
    assert early.where != late.where


def test_every_question_is_asked_once_an_epoch_and_with_other_samples_in_the_next() -> None:
    made = collector()
    where = [w for step in range(7) for w in made.collect(TABLE, step, 0.0).where[::N]]
    assert len(where) == 21
    for epoch in range(3):
        assert sorted(where[7 * epoch : 7 * (epoch + 1)]) == [f"question {i}" for i in range(7)]
    engine = made._engine
    assert isinstance(engine, Recording)
    ids = [request.question for requests, _ in engine.asked for request in requests]
    assert len(set(ids)) == len(ids)
    assert [sampling.step for _, sampling in engine.asked] == list(range(7))


def test_rewards_are_weighted_summed_and_logged_apart() -> None:
    ends = Judge(lambda text, tokens, finished: float(finished), "ends")
    made = collector("grpo", Weighted(Judge(length), 0.5), Weighted(ends, 2.0, verdict=True))
    collection = made.collect(TABLE, 0, 0.0)
    batch, metrics = collection.batch, collection.metrics
    assert batch.reward is not None and batch.correct is not None
    by_name = batch.rewards_by_name
    assert torch.equal(batch.reward, 0.5 * by_name["judge"] + 2 * by_name["ends"])
    assert torch.equal(batch.correct, by_name["ends"] > 0)
    assert metrics["reward/mean"] == pytest.approx(float(batch.reward.mean()))
    assert metrics["reward/judge"] == metrics["rollout/length"] == pytest.approx(float(by_name["judge"].mean()))
    assert metrics["rollout/correct"] == pytest.approx(float(by_name["ends"].mean()))
    assert metrics["rollout/cut_off"] == pytest.approx(1 - metrics["rollout/correct"])
    assert [sample["rewards"] for sample in collection.samples] == [
        {name: float(scores[i]) for name, scores in by_name.items()} for i in range(len(collection.samples))
    ]


def test_rewards_see_text_without_the_end_and_tokens_with_it() -> None:
    seen = Judge(length)
    collector("grpo", seen).collect(TABLE, 0, 0.0)
    assert [len(group.completions) for group in seen.seen] == [N] * QUESTIONS
    for group in seen.seen:
        assert group.columns["prompt"].startswith("q")
        for text, tokens, finished in zip(group.completions, group.tokens, group.finished, strict=True):
            assert finished == (tokens[-1] == END) and len(text) == len(tokens) - finished


@pytest.mark.parametrize("fault", [None, math.nan, math.inf])
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_score_that_is_none_masks_the_row_and_leaves_the_baseline(fault: float | None, weight: float) -> None:
    other = Judge(lambda text, tokens, finished: fault if len(tokens) < 6 else 1.0, "other")
    allowed = Weighted(other, weight, max_error_rate=1.0)
    collection = collector("grpo", Judge(length), allowed).collect(TABLE, 0, 0.0)
    batch = collection.batch
    assert batch.reward is not None and batch.reward_mask is not None and batch.reward.isfinite().all()
    short = batch.loss_mask.sum(-1) < 6
    assert short.any() and not short.all()
    failed = 0.0 if fault is None else float(short.double().mean())
    assert collection.metrics["rollout/failed_grades"] == pytest.approx(failed)
    if not weight:
        assert batch.reward_mask.all()
        return
    assert torch.equal(batch.reward_mask, ~short)
    assert collection.metrics["rollout/ungraded"] == pytest.approx(float(short.double().mean()))
    prepared = build_algorithm("grpo", rollouts=N).prepare(batch)
    assert not prepared.loss_mask[short].any()
    assert prepared.advantage is not None and not prepared.advantage[short].any()


def test_completions_that_were_cut_off_can_be_masked_and_stay_in_the_baseline() -> None:
    plain = collector().collect(TABLE, 0, 0.0).batch
    collection = collector(mask_cut_off=True).collect(TABLE, 0, 0.0)
    masked = collection.batch
    assert plain.tokens is not None and masked.reward is not None and plain.reward is not None
    lengths = plain.loss_mask.sum(-1)
    last = plain.tokens.gather(1, lengths[:, None] - 1)[:, 0]
    cut = last != END
    assert cut.any() and not cut.all()
    assert collection.muted == tuple(cut.nonzero()[:, 0].tolist())
    assert torch.equal(masked.reward, plain.reward)


def test_dull_groups_are_replaced_by_other_questions_where_the_algorithm_asks() -> None:
    ends = Judge(lambda text, tokens, finished: float(finished), "ends")
    dull = collector("dapo", ends, resamples=0).collect(TABLE, 0, 0.0)
    filled = collector("dapo", ends, resamples=8).collect(TABLE, 0, 0.0)
    kept = collector("grpo", ends, resamples=8).collect(TABLE, 0, 0.0)
    assert dull.batch.reward is not None and filled.batch.reward is not None and kept.batch.reward is not None
    assert torch.equal(kept.batch.reward, dull.batch.reward)

    def flat(reward: torch.Tensor) -> list[bool]:
        return [bool((group == group[0]).all()) for group in reward.reshape(-1, N)]

    assert any(flat(dull.batch.reward)) and not any(flat(filled.batch.reward))
    for i, was_flat in enumerate(flat(dull.batch.reward)):
        if not was_flat:
            assert filled.where[N * i] == dull.where[N * i]
    assert filled.metrics["rollout/replaced_groups"] >= sum(flat(dull.batch.reward))
    assert filled.metrics["rollout/tokens"] > dull.metrics["rollout/tokens"]
    gone = filled.metrics["rollout/tokens"] - sum(len(row.completion) for row in filled.rows)
    assert dull.aside == kept.aside == 0 and filled.aside > gone > 0
    assert "rollout/replaced_groups" not in kept.metrics


def test_replacements_are_questions_that_the_collection_has_not_seen() -> None:
    made = collector("dapo", Judge(lambda *_: 1.0), resamples=1)
    made.collect(TABLE, 0, 0.0)
    engine = made._engine
    assert isinstance(engine, Recording)
    first, others = ([tuple(request.prompt) for request in requests] for requests, _ in engine.asked)
    assert len({*first, *others}) == 2 * QUESTIONS


def test_a_group_is_replaced_by_a_question_of_its_own_source() -> None:
    named = [dataclasses.replace(problem, source="ab"[i > 3]) for i, problem in enumerate(PROBLEMS)]
    mixed = Mixed(("a", "b"), (4, 3), ((1, (2, 1)),))
    made = collector("dapo", Judge(lambda *_: 1.0), resamples=1, problems=named, mixed=mixed)
    collection = made.collect(TABLE, 0, 0.0)
    engine = made._engine
    assert isinstance(engine, Recording)
    first, others = ([named[request.question % 7].source for request in requests] for requests, _ in engine.asked)
    assert first == others == list(collection.sources[::N]) and sorted(first) == ["a", "a", "b"]


def test_replacing_is_bounded() -> None:
    made = collector("dapo", Judge(lambda *_: 1.0), resamples=3)
    collection = made.collect(TABLE, 0, 0.0)
    engine = made._engine
    assert isinstance(engine, Recording) and len(engine.asked) == 4
    assert collection.metrics["rollout/replaced_groups"] == 3 * QUESTIONS
    ids = [request.question for requests, _ in engine.asked for request in requests]
    assert len(set(ids)) == len(ids)  # seven questions for twelve groups: one that comes again has other samples


def test_an_algorithm_may_plan_a_prefix() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Prefixed(Algorithm):
        def plan(self, question: Question, progress: float, rng: Random) -> list[Request]:
            plain = Request(question.prompt, n=N - 1, question=question.id)
            return [plain, Request(question.prompt, prefix=(7, 8), question=question.id + 1000)]

    base = build_algorithm("grpo", rollouts=N)
    made = Prefixed(**{f.name: getattr(base, f.name) for f in dataclasses.fields(base)})
    collection = collector(made).collect(TABLE, 0, 0.0)
    batch = collection.batch
    assert batch.tokens is not None and batch.behavior_logp is not None
    for i in range(N - 1, len(collection.rows), N):
        assert batch.tokens[i, :2].tolist() == [7, 8] and collection.rows[i].completion[:2].tolist() == [7, 8]
        assert batch.origin[i, :2].tolist() == [Origin.DEMO] * 2 and (batch.origin[i, 2:] == Origin.ROLLOUT).all()
        assert not batch.behavior_logp[i, :2].any() and batch.behavior_logp[i, 2] != 0
        assert batch.loss_mask[i, :3].all()


DEMONSTRATED = [dataclasses.replace(problem, demonstration=(5, 6, 7, END)) for problem in PROBLEMS[:6]] + PROBLEMS[6:]


def demonstrating(name: str, judge: Judge, **options: Any) -> RolloutCollector:
    algorithm = build_algorithm(name, rollouts=N, **options)
    sampling = Sampling(max_tokens=6, seed=3)
    return RolloutCollector(
        DEMONSTRATED, algorithm, Recording(), [Weighted(judge, verdict=True)], sampling, Letters(), questions=7
    )


def test_the_demonstration_is_the_last_row_of_its_group_and_is_judged_like_an_answer() -> None:
    judge = Judge(lambda text, tokens, finished: float(text == "fgh" and finished))
    collection = demonstrating("luffy", judge, max_tokens=6).collect(TABLE, 0, 0.0)
    batch = collection.batch
    assert batch.tokens is not None and batch.behavior_logp is not None and batch.reward is not None
    assert len(collection.rows) == len(collection.where) == len(collection.units) == 7 * N + 6
    shown = [i for i in range(len(collection.rows)) if bool(batch.origin[i, 0] == Origin.DEMO)]
    assert len(shown) == 6
    for i in shown:
        assert collection.rows[i].completion.tolist() == [5, 6, 7, END] == batch.tokens[i, :4].tolist()
        assert batch.loss_mask[i].sum() == 4 and not batch.behavior_logp[i].any()
        assert batch.group[i] == batch.group[i - 1] and collection.where[i] == collection.where[i - 1]
        assert i + 1 == len(collection.rows) or batch.group[i] != batch.group[i + 1]
        assert batch.reward[i] == 1
    assert sorted(len(group.completions) for group in judge.seen) == [N] + [N + 1] * 6
    metrics = collection.metrics
    assert metrics["rollout/demonstrated"] == pytest.approx(6 / 7)
    assert metrics["reward/mean"] == metrics["rollout/correct"] == 0  # of what was sampled
    assert metrics["rollout/tokens"] == int(batch.loss_mask.sum()) - 6 * 4
    assert all(sample["completion"] != "fgh" for sample in collection.samples)


def test_one_rollout_continues_the_demonstrations_prefix() -> None:
    judge = Judge(lambda text, tokens, finished: float(text.startswith("f")))
    collection = demonstrating("prefix_rft", judge, max_tokens=6).collect(TABLE, 0, 1.0)
    batch = collection.batch
    assert batch.tokens is not None
    assert len(collection.rows) == 7 * N
    lengths = (batch.origin == Origin.DEMO).sum(-1).tolist()
    assert sum(length > 0 for length in lengths) == 6 and set(lengths) <= {0, 1, 2, 3}
    for i, length in enumerate(lengths):
        assert batch.tokens[i, :length].tolist() == [5, 6, 7][:length]
        assert bool(batch.loss_mask[i, length]) and batch.loss_mask[i].sum() <= 6
    assert collection.metrics["rollout/correct_after_prefix"] == 1 > collection.metrics["rollout/correct"]
    assert collection.metrics["rollout/prefix_length"] == pytest.approx(sum(lengths) / 6)
    again = demonstrating("prefix_rft", judge, max_tokens=6).collect(TABLE, 0, 1.0)
    assert torch.equal(again.batch.origin, batch.origin)


@pytest.mark.parametrize("updates", [1, 2])
def test_a_set_of_demonstrations_stands_beside_the_rollouts_of_each_step(updates: int) -> None:
    def example(i: int) -> Example:
        row = Row(np.array([2, 3]), np.array([9] * (8 + i % 2) + [END]), np.array([True] * (9 + i % 2)))
        return Example((row,), f"shown {i}")

    examples = [example(i) for i in range(5)]
    rollouts = collector("grpo", Weighted(Judge(length), verdict=True), updates=updates)
    shown = DemonstrationCollector(examples, order_of(len(examples), 2, 0), updates=updates)
    alone = rollouts.collect(TABLE, 4, 0.5)
    collection = BesideDemonstrations(rollouts, shown).collect(TABLE, 4, 0.5)
    batch, own = collection.batch, len(alone.rows)
    assert batch.tokens is not None and batch.reward is not None and batch.correct is not None
    assert batch.reward_mask is not None and batch.behavior_logp is not None and batch.progress == 0.5
    assert len(collection.rows) == own + 2 * updates == len(collection.units) == len(collection.where)
    width = alone.batch.loss_mask.shape[1]
    assert torch.equal(batch.loss_mask[:own, :width], alone.batch.loss_mask) and not batch.loss_mask[:own, width:].any()
    assert (batch.origin[own:, 0] == Origin.DEMO).all() and batch.tokens[own, 0] == 9
    assert not batch.reward[own:].any() and batch.reward_mask[own:].all() and not batch.behavior_logp[own:].any()
    assert len(set(batch.group[own:].tolist()) - set(batch.group[:own].tolist())) == 2 * updates
    for k, step in enumerate(collection.steps):
        assert step[:-2] == alone.steps[k]
        assert [collection.where[unit] for unit in step[-2:]] == [f"shown {i}" for i in order_of(5, 2, 0).of(4 + k)]


def test_where_a_verdict_is_asked_for_rows_without_one_are_not_graded() -> None:
    class Undecided(Judge):
        def judge(self, group: Group) -> list[Judgement]:
            return [Judgement(1.0, None if i == 0 else True) for i, _ in enumerate(super().judge(group))]

    for name, decided in [("hpt", False), ("luffy", True)]:
        batch = demonstrating(name, Undecided(length), max_tokens=6).collect(TABLE, 0, 0.0).batch
        assert batch.reward_mask is not None
        assert bool(batch.reward_mask[0]) == decided and batch.reward_mask[1 : N + 1].all()


def test_the_engine_rests_when_the_last_answer_of_a_collection_is_there() -> None:
    class Rested(Recording):
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
            events.append("asked")
            return super().generate(requests, sampling)

        def rest(self) -> None:
            events.append("rests")
            super().rest()

    events = list[str]()
    made = collector("dapo", Judge(lambda *_: 1.0), engine=Rested(), resamples=2)
    made.collect(TABLE, 0, 0.0)
    assert events == ["asked", "asked", "asked", "rests"]
    made.collect(TABLE, 1, 0.0)
    assert events[4:] == events[:4]


def test_an_engine_that_cannot_rest_needs_not() -> None:
    class Plain:
        def __init__(self) -> None:
            engine = Recording()
            self.sync, self.generate, self.close = engine.sync, engine.generate, engine.close

    assert len(collector(engine=Plain()).collect(TABLE, 0, 0.0).rows) == QUESTIONS * N


def test_completions_of_other_weights_are_refused() -> None:
    class Stale(Recording):
        def sync(self, model: Any, version: int) -> None:
            if version < 2:
                super().sync(model, version)

        def rest(self) -> None:
            """Keeps what it has."""

    made = collector(engine=Stale())
    made.collect(TABLE, 1, 0.0)
    with pytest.raises(EngineError, match="version 1, and the trainer's are version 2"):
        made.collect(TABLE, 2, 0.0)
