"""From what a trainer is given, data sets, rewards and an engine, to the collector of its algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.algorithms import KIND
from posttrain.data.columns import compared_by, shown_by
from posttrain.data.encoding.teacher import Asked, AskedLater
from posttrain.data.rows import Example, Problem
from posttrain.data.rows.stream import Stream
from posttrain.data.rows.together import in_memory
from posttrain.environments.reward import paid_by
from posttrain.errors import RecipeError, SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rewards.base import Reward, Weighted
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.settings.data import Encoding
from posttrain.settings.rollout import ReplayConfig
from posttrain.train.collect.ahead.make import ahead_collector
from posttrain.train.collect.ahead.sampler import Ahead
from posttrain.train.collect.collection import Collector
from posttrain.train.collect.demonstrations import DemonstrationCollector, StreamCollector
from posttrain.train.collect.episodes.player import Player
from posttrain.train.collect.order import Mixed, Order, Rule, examples_of_epochs, order_of
from posttrain.train.collect.over.beside import BesideDemonstrations
from posttrain.train.collect.over.pairs import PairCollector
from posttrain.train.collect.over.replay import ReplayCollector, check_replay
from posttrain.train.collect.over.unsolved import UnsolvedCollector
from posttrain.train.collect.rollouts import RolloutCollector
from posttrain.train.given.rows import as_examples, as_problems, encoding_of, read_as, weighted


def demonstration_collector(data: Sequence[Example], algorithm: Algorithm, order: Order) -> Collector:
    """Of the examples that each step takes by `order`.

    Raises:
        SetupError: the algorithm needs more than demonstrations or pairs.
    """
    if algorithm.needs.demonstration not in ("none", "row"):
        raise SetupError(f"{algorithm.name} needs {algorithm.needs.demonstration}, which this version cannot collect.")
    return DemonstrationCollector(data, order, updates=algorithm.needs.updates)


def collected_data(
    data: Any,
    algorithm: Algorithm,
    model: Any,
    tokenizer: Any,
    *,
    rows: int,
    tokens: int | None = None,
    seed: int,
    rewards: Sequence[Reward | Weighted],
    sampling: Sampling | None,
    demonstrations: Any,
    teacher: Asked | None = None,
    encoding: Encoding | None = None,
    epochs: float | None = None,
    steps: int = 0,
    mixed: Mixed | None = None,
    rule: Rule | None = None,
    **options: Any,
) -> tuple[Sequence[Any], Collector, Order]:
    """The examples or questions of a data set, in random order or by a `rule`, or of sources that are `mixed`, the collector
    that makes the algorithm's steps of them, of so many `rows`, or in place of rows of `tokens`, and the order in which it
    does (of a stream its first ones, and all of it): so many passes over them, or so many steps, and else without end;
    `teacher` as `asked_by` gives it; `encoding` of what it is asked later; `options` are of `rollout_collector`.

    Raises:
        DataError, RecipeError, SetupError: as `as_examples`, `as_problems` and the collectors.
    """
    if isinstance(data, Stream):
        if tokens is not None or rule is not None or mixed is not None or epochs is not None:
            raise SetupError("train_dataset: a stream is read in its own order, in steps of rows: set max_steps alone.")
        order = order_of(len(data.first), rows, seed)
        return data.first, StreamCollector(data, order, updates=algorithm.needs.updates), order
    if not algorithm.needs.rollouts:
        shown: Sequence[Example] = data  # on disk it is what a `Reader` has made for this algorithm
        if in_memory(data):
            shown = as_examples(data, model, tokenizer, **read_as(algorithm.needs), teacher=teacher)
        lengths = None if tokens is None else [example.tokens for example in shown]
        order = order_of(len(shown), tokens or rows, seed, _end(epochs, shown, mixed, rule), mixed, rule, lengths=lengths)
        return shown, demonstration_collector(shown, algorithm, order), order
    if tokens is not None:
        raise SetupError(f"tokens_per_step: a step of {algorithm.name} is of whole groups of rollouts: leave it out.")
    asked = as_problems(
        data,
        model,
        tokenizer,
        rewards=rewards,
        max_tokens=sampling.max_tokens if sampling is not None else 1,
        demonstrated=shown_by(algorithm.needs),
        teacher=teacher,
        numbers=compared_by(algorithm.needs),
    )
    if teacher is not None and teacher.shows_right:
        ends = tuple(eos_ids(model, tokenizer))
        options["asked_later"] = AskedLater(teacher, encoding or encoding_of(tokenizer), ends)
    beside = as_examples(demonstrations, model, tokenizer, teacher=teacher) if len(demonstrations) else ()
    end = _end(epochs, asked, mixed, rule)
    if end is not None and algorithm.needs.adds_steps:
        raise SetupError(
            f"{algorithm.name} adds optimizer steps that nobody knows beforehand: set max_steps, and not num_train_epochs."
        )
    if rule is not None and algorithm.needs.resample and options.get("resamples", True):
        raise SetupError(f"order: {algorithm.name} replaces groups by questions in random order: set resamples 0.")
    collector = rollout_collector(
        asked,
        algorithm,
        rows=rows,
        rewards=rewards,
        sampling=sampling,
        tokenizer=tokenizer,
        demonstrations=beside,
        end=end,
        steps=steps if end is None else -(-end * algorithm.needs.rollouts // rows),
        mixed=mixed,
        rule=rule,
        **options,
    )
    return asked, collector, order_of(len(asked), rows // algorithm.needs.rollouts, seed, end, mixed, rule)


def _end(epochs: float | None, data: Sequence[Any], mixed: Mixed | None, rule: Rule | None) -> int | None:
    if mixed is not None and sum(mixed.sizes) != len(data):
        raise SetupError(f"mixed: its sources have {sum(mixed.sizes)} rows, and train_dataset {len(data)}.")
    if mixed is not None and epochs is not None and not mixed.reads_all(epochs):
        raise SetupError("mixed: each source has passes of its own: set max_steps, and not num_train_epochs.")
    if rule is not None and (mixed is not None or max(rule.sizes) != len(data)):
        raise SetupError(f"order: it is of one source, of {max(rule.sizes)} rows, and train_dataset has {len(data)}.")
    if rule is not None and len(rule.sizes) > 1 and epochs is not None:
        raise SetupError("order: its passes differ: set max_steps, and not num_train_epochs.")
    return None if epochs is None else examples_of_epochs(epochs, len(data))


def rollout_collector(
    data: Sequence[Problem],
    algorithm: Algorithm,
    *,
    rows: int,
    rewards: Sequence[Reward | Weighted],
    engine: RolloutEngine | None,
    sampling: Sampling | None,
    tokenizer: Any,
    demonstrations: Sequence[Example] = (),
    ahead: Ahead | None = None,
    replay: ReplayConfig | None = None,
    steps: int = 0,
    **options: Any,
) -> Collector:
    """Of `rows` rollouts a step, with what the algorithm is shown beside them; made ahead, where that is asked for, up to
    `steps` optimizer steps. Refuses what would train something else than was asked.

    Raises:
        RecipeError, SetupError: says what, and what to do.
    """
    needs = algorithm.needs
    player: Player | None = options.get("player")
    if engine is None or sampling is None or (algorithm.learns_from_rewards and not rewards and player is None):
        asked = "rewards= and sampling=" if algorithm.learns_from_rewards else "sampling="
        raise SetupError(f"{algorithm.name} trains on rollouts: pass {asked}, and an engine= or none.")
    if bool(needs.demonstrations) != bool(demonstrations):
        wanted = "a set of demonstrations" if needs.demonstrations else "no set of demonstrations"
        raise SetupError(f"{algorithm.name} takes {wanted} beside its questions: see demonstrations= (data.demonstrations).")
    if rows % needs.rollouts:
        raise RecipeError(
            f"{rows} rollouts in a step are no whole number of groups of {needs.rollouts}: "
            "per_device_train_batch_size × gradient_accumulation_steps must be a multiple."
        )
    if options.get("mask_cut_off") and needs.measures_tokens:
        raise SetupError(
            f"{algorithm.name} makes its credit of all tokens together, and those of answers that are cut off would be among "
            "them: leave mask_cut_off False."
        )
    check_sampling(algorithm, sampling)
    judges, questions = weighted(rewards), rows // needs.rollouts
    if player is not None:
        judges = [*judges, paid_by(player.config, judged=any(judge.verdict for judge in judges))]
    names = [judge.reward.name for judge in judges]
    if len(set(names)) < len(names):
        raise SetupError(f"rewards: {', '.join(names)}: each needs a name of its own, under which it is logged.")
    if needs.verdict and not any(judge.verdict for judge in judges):
        raise SetupError(f"{algorithm.name} asks which rollouts are right: pass one reward as Weighted(…, verdict=True).")
    options["questions"] = questions
    if ahead is None:
        collector: Collector = RolloutCollector(data, algorithm, engine, judges, sampling, tokenizer, **options)
    else:
        collector = ahead_collector(ahead, data, algorithm, engine, sampling, tokenizer, steps, options)
    if replay is not None:
        known, right = KIND.members.get(algorithm.name), any(judge.verdict for judge in judges)
        check_replay(algorithm, replay, questions=questions, verdict=right, options=known and known.model_fields)
        collector = ReplayCollector(collector, replay, questions=questions, seed=sampling.seed)
    if needs.pairs is not None:
        return PairCollector(collector, needs.pairs, sampling.seed)
    if needs.buffer is not None:
        return UnsolvedCollector(collector, needs.buffer)
    if not demonstrations:
        return collector
    order = order_of(len(demonstrations), needs.demonstrations, sampling.seed)
    shown = DemonstrationCollector(demonstrations, order, updates=needs.updates)
    return BesideDemonstrations(collector, shown)


def check_sampling(algorithm: Algorithm, sampling: Sampling) -> None:
    """Refuses distributions that the algorithm cannot learn from, or would learn something else from.

    Raises:
        RecipeError: says which, and what to do.
    """
    if not sampling.temperature:
        raise RecipeError("sampling: at temperature 0 all completions of a group are equal, and nothing can be learnt.")
    if algorithm.importance_ratio and (sampling.top_p < 1 or sampling.top_k):
        raise RecipeError(
            "sampling: with top_p or top_k tokens come from a cut-off distribution, and what the algorithm compares (several "
            "updates, a correction, old: sampler or a KL in the reward) is of the whole one: it would be wrong without a "
            "sign. Leave them at 1 and 0, or do without the comparison."
        )
