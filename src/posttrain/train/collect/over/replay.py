"""Rollouts of earlier collections as rows of later ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from random import Random
from typing import Any

import torch

from posttrain.errors import RecipeError
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.parts.denominator import current
from posttrain.settings.rollout import ReplayConfig
from posttrain.train.collect.collection import NOTHING, Collection, Collector
from posttrain.train.collect.over.over import Over
from posttrain.train.collect.over.rows import joined, taken


class ReplayCollector(Over):
    """Stores the groups that another collector samples, and puts some of those of before into each collection.

    A group stays whole, so that its baseline is the one that it had. With `right` those are stored that have a right rollout
    and a wrong one: where all are right, no baseline of the group leaves an advantage. Which are drawn is a function of the
    seed, the step and what is stored, which is alike on all ranks.

    Args:
        inner: collects rollouts, each a unit; a question's rows are a group.
        replay: what is stored, and how much of it comes back.
        questions: of an optimizer step, those that are asked.
        seed: of what is drawn.
    """

    def __init__(self, inner: Collector, replay: ReplayConfig, *, questions: int, seed: int) -> None:
        super().__init__(inner)
        self._replay, self._seed = replay, seed
        self._each = replayed(replay, questions)
        self._stored: Collection | None = None

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; raises what the inner one does."""
        fresh = _dated(self._inner.collect(model, step, progress), step)
        before, self._stored = self._stored, self._with(fresh)
        metrics = {**fresh.metrics, "rollout/replayed": 0.0, "rollout/stored": float(len(_groups(self._stored)))}
        groups = _groups(before)
        drawn = Random(f"{self._seed}/{step}/replay").sample(groups, min(len(groups), self._each * len(fresh.steps)))
        if before is None or not drawn:
            return dataclasses.replace(fresh, metrics=metrics)
        again = _of(before, drawn)
        place = {group: i % len(fresh.steps) for i, group in enumerate(drawn)}
        owners = again.flat.fields["group"].tolist()
        steps = [[unit for unit, group in enumerate(owners) if place[group] == k] for k in range(len(fresh.steps))]
        metrics["rollout/replayed"] = len(again.rows) / (len(again.rows) + len(fresh.rows))
        metrics["rollout/replay_age"] = step - float(again.flat.fields["version"].double().mean())
        return dataclasses.replace(joined(fresh, again, steps), metrics=metrics)

    def kept(self) -> Collection | None:
        """See `Collector`: what is stored, the oldest in front."""
        return self._stored

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""
        super().restore(state, ahead)
        self._stored = kept

    def _with(self, fresh: Collection) -> Collection | None:
        """What is stored once these rollouts are."""
        fields, silent = fresh.flat.fields, set(fresh.muted)
        owners, rows = fields["group"].tolist(), range(len(fresh.rows))
        learnt = [row for row in rows if row not in silent and bool(fields["reward_mask"][row])]
        if self._replay.filter == "right":
            wrong = {owners[row] for row in rows if bool(fields["reward_mask"][row]) and not bool(fields["correct"][row])}
            learnt = [row for row in learnt if bool(fields["correct"][row]) and owners[row] in wrong]
            silent |= {*rows} - {*learnt}
        plain = dataclasses.replace(fresh, muted=tuple(sorted(silent)), steps=(), metrics={}, samples=())
        groups = {owners[row] for row in learnt}
        new = _of(plain, groups) if groups else None
        there = [one for one in (self._stored, new) if one is not None]
        if not there:
            return None
        whole = joined(there[0], there[1], ()) if len(there) > 1 else there[0]
        return _of(whole, _groups(whole)[-self._replay.size :])


def _dated(collection: Collection, step: int) -> Collection:
    """With the version of the weights that have sampled each row."""
    flat = collection.flat
    if flat.get("version") is not None:
        return collection
    versions = torch.full((len(flat), 1), step, dtype=torch.int32)
    return dataclasses.replace(collection, flat=flat.replace(version=versions))


def _groups(collection: Collection | None) -> list[int]:
    """By age, the oldest first."""
    return [] if collection is None else sorted(set(collection.flat.fields["group"].tolist()))


def _of(collection: Collection, groups: Any) -> Collection:
    wanted = set(groups)
    owners = collection.flat.fields["group"].tolist()
    return taken(collection, [row for row, group in enumerate(owners) if group in wanted])


def replayed(replay: ReplayConfig, questions: int) -> int:
    """Questions that a step has from the store, at most, beside those that are asked."""
    return int(questions * replay.share / (1 - replay.share) + 1e-9)


def _not_weighed(options: Container[str] | None) -> str:
    """What an algorithm lacks of these options that would weigh rows by their sampler, and what to do."""
    if options is None:
        return "compares with no sampler: give its terms a correction (posttrain.estimator.parts.correction)"
    if "correction" not in options:
        return "has no option to weigh it by its sampler: it cannot replay, leave it out"
    return (
        "compares with no sampler: set algorithm.correction: {level: token, form: truncate, cap: 2.0}, or old: sampler where "
        "it has a ratio to pi_old"
    )


def check_replay(
    algorithm: Algorithm, replay: ReplayConfig, *, questions: int, verdict: bool, options: Container[str] | None
) -> None:
    """Refuses to train on what older weights have sampled where the loss would be wrong of it.

    Args:
        algorithm: trains on it.
        replay: what is stored.
        questions: of an optimizer step, those that are asked.
        verdict: a reward says which rollouts are right.
        options: that the algorithm has, of which one may weigh rows by their sampler; None: it is made by hand.

    Raises:
        RecipeError: says why, and what to do.
    """
    needs, name = algorithm.needs, algorithm.name
    by_ratio = needs.old_of_sampler and any(term.estimator.denominator is not current for term in algorithm.terms)
    if needs.pairs is not None or needs.demonstration not in ("none", "separate"):
        of = "pairs of rollouts" if needs.pairs is not None else "rollouts with demonstrations of their questions"
        raise RecipeError(f"rollout.replay: {name} trains on {of}, which are not stored: leave it out.")
    if not (algorithm.corrected or by_ratio):
        raise RecipeError(f"rollout.replay: what is stored was sampled by older weights, and {name} {_not_weighed(options)}.")
    if algorithm.adaptive:
        which = " and ".join(one.name for one in algorithm.adaptive)
        raise RecipeError(
            f"rollout.replay: {which} follows what is measured of the policy, and of stored rows it would be measured of an "
            "older one: make it a number."
        )
    if replay.filter == "right" and not verdict:
        raise RecipeError("rollout.replay: filter: right asks which rollouts are right: mark a reward, verdict: true.")
    if replay.filter == "right" and needs.measures_tokens:
        raise RecipeError(f"rollout.replay: {name} makes its credit of all tokens together: take filter: all.")
    if not replayed(replay, questions):
        raise RecipeError(f"rollout.replay: a share of {replay.share:g} of {questions} questions a step is none: raise it.")
