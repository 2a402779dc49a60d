"""Episodes in which several turns are tried, and the environment's own reward says with which one it goes on.

Multi-branch reasoning at use (Enhancing the General Agent Capabilities of Low-Parameter LLMs through Tuning and Multi-Branch
Reasoning, arXiv:2403.19962; from its abstract): how turns are chosen, and the way back, are ours. In each turn n are sampled
from one history, and each is answered from one state of the environment; the best goes on: one that is right, else the one
that was paid most, the first of several. Where that ends wrong, the best of the turns that were left last is taken in its
place, so many times as `backtracks` says. Of all ends the best counts. The reward is known while it is played: an oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from posttrain.environments.base import FAILED, Forkable
from posttrain.estimator.batch import Request
from posttrain.rollout.engine import Sampling
from posttrain.settings.evaluation import Branch
from posttrain.telling import tell
from posttrain.train.collect.episodes.player import Live, Player

APART = 2**20
"""Samples of a question, at most."""
NOT_PLAIN = "pass@1 is not that of plain play, nor what the policy does without the environment's help."


@dataclass(frozen=True, slots=True)
class _Node:
    """An episode up to a turn, and the state of its environment then."""

    live: Live
    state: bytes

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """By which turns that were tried are compared: not failed, right, what the last one was paid."""
        step = self.live.played[-1].step
        return self.live.end not in FAILED, bool(step.info.get("correct")), step.reward or 0.0


@dataclass(slots=True)
class _Search:
    """Ways of one episode: where it is, how often a turn of each number was tried, so that none is sampled as one before it,
    what was left, the best on top, and what has ended.
    """

    first: Live
    at: _Node | None
    left: int
    visits: Counter[int] = field(default_factory=Counter[int])
    waiting: list[_Node] = field(default_factory=list[_Node])
    ended: list[Live] = field(default_factory=list[Live])

    def goes_on(self, tried: Sequence[_Node]) -> None:
        """With the best of some turns, or of those that were left."""
        best = max(tried, key=lambda node: node.worth)
        self.ended += [node.live for node in tried if node.live.end is not None]
        others = [node for node in reversed(tried) if node.live.end is None and node is not best]
        self.waiting += sorted(others, key=lambda node: node.worth)
        if best.live.end is None:
            self.at = best
        elif best.worth[1] or not self.left or not self.waiting:
            self.at = None
        else:
            self.at, self.left = self.waiting.pop(), self.left - 1

    def over(self) -> None:
        """The episode is the best of those that have ended: right, and paid most."""
        if self.ended:
            best = max(self.ended, key=_total)
            for one in fields(Live):
                setattr(self.first, one.name, getattr(best, one.name))


class BranchingPlayer(Player):
    """Plays as another player does, with branches.

    Args:
        plain: the player, whose environments are `Forkable`.
        branch: how many, and how often it goes back.
    """

    def __init__(self, plain: Player, branch: Branch) -> None:
        context, lockstep = plain._context, plain._lockstep
        super().__init__(
            plain._engine, plain._sessions, plain._glue, plain._text, plain._config, context=context, lockstep=lockstep
        )
        self._branch = branch
        tell(
            "branches",
            f"eval.branch: of {branch.n} turns the environment's own reward chooses, which is an oracle: {NOT_PLAIN}",
        )

    def _all_turns(self, live: Sequence[Live], sampling: Sampling) -> None:
        alive = [one for one in live if one.end is None]
        states = self._sessions.states([_forkable(one) for one in alive])
        searches = [
            _Search(one, _Node(_copied(one), state), self._branch.backtracks)
            for one, state in zip(alive, states, strict=True)
        ]
        while self._goes_on([search.first for search in searches if search.at is not None]):
            going = [(search, search.at) for search in searches if search.at is not None]
            tried = self._tried([(node, self._sample(search, node)) for search, node in going], sampling)
            for (search, _), nodes in zip(going, tried, strict=True):
                search.goes_on(nodes)
        for search in searches:
            search.over()

    def _sample(self, search: _Search, node: _Node) -> int:
        """The number of the first of its turns, by which they are seeded; of one branch that of the episode."""
        turn = len(node.live.played)
        search.visits[turn] += 1
        return node.live.sample * self._branch.n + (search.visits[turn] - 1) * APART

    def _tried(self, nodes: Sequence[tuple[_Node, int]], sampling: Sampling) -> list[list[_Node]]:
        """Several turns after each node, seeded by the number of the first."""
        n = self._branch.n
        requests = [
            Request(
                one.live.history,
                n=n,
                question=one.live.asked.question,
                max_tokens=self._room(one.live, sampling),
                turn=len(one.live.played),
                sample=sample,
            )
            for one, sample in nodes
        ]
        made = [[_copied(node.live) for _ in range(n)] for node, _ in nodes]
        for lives, completions in zip(made, self._engine.generate(requests, sampling), strict=True):
            for one, completion in zip(lives, completions, strict=True):
                self._take(one, completion, sampling)
        asked = [
            (_forkable(node.live), node.state, [one.played[-1].turn for one in lives])
            for (node, _), lives in zip(nodes, made, strict=True)
        ]
        tried = list[list[_Node]]()
        for lives, steps in zip(made, self._sessions.branches(asked), strict=True):
            for one, (step, _) in zip(lives, steps, strict=True):
                self._answered(one, step, sampling)
            tried.append([_Node(one, state) for one, (_, state) in zip(lives, steps, strict=True)])
        return tried


def _copied(one: Live) -> Live:
    return replace(one, history=[*one.history], played=[*one.played])


def _forkable(one: Live) -> Forkable:
    assert isinstance(one.environment, Forkable), "recipes are refused whose environment is not"
    return one.environment


def _total(one: Live) -> tuple[bool, bool, float]:
    right = bool(one.played and one.played[-1].step.info.get("correct"))
    return one.end not in FAILED, right, sum(played.step.reward or 0.0 for played in one.played)
