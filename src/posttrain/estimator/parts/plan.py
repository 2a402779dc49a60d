"""What is sampled for a question, before generation: `(question, n, progress, rng) -> requests`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from posttrain.estimator.batch import Question, Request

Count = Callable[[int, float, Random], int]
"""Of so many chunks, at this share of the run, how many are a hint."""
PARTS = 8  # of a demonstration, at whose ends rollouts may branch off


def plain(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
    """n completions of the prompt; nothing for an algorithm without rollouts."""
    return [Request(question.prompt, n=n, question=question.id)] if n else []


def beside_greedy(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
    """n completions of the prompt, and the most probable one, which is their baseline (ReMax, arXiv:2310.10505)."""
    greedy = Request(question.prompt, question=question.id, temperature=0.0)
    return [*plain(question, n, progress, rng), greedy]


def continued(
    question: Question, n: int, progress: float, rng: Random, *, start: float, end: float, high: float
) -> list[Request]:
    """n - 1 plain completions, and one that continues a demonstration's first tokens; n plain ones without a demonstration.

    low = end + (start - end) (1 + cos(pi · progress)) / 2,   share ~ U(low, high),   L = int(share · |y*|), in [1, |y*| - 1]

    (Prefix-RFT, arXiv:2507.01679.) The cut is between token ids.
    """
    plain = partial(Request, question.prompt, question=question.id)
    other = -1 - question.id  # other samples than those of the plain ones
    demonstration = question.demonstration
    if demonstration is None or len(demonstration) < 2:
        return [plain(n=n)]
    low = end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    length = int(rng.uniform(min(low, high), high) * len(demonstration))
    length = min(max(length, 1), len(demonstration) - 1)
    return [plain(n=n - 1), Request(question.prompt, tuple(demonstration[:length]), question=other)]


def branch(question: Question, n: int, worked: Mapping[int, bool]) -> Request | None:
    """n completions that go on from the next head of a demonstration to be tried, where from nothing none was right.

    Heads are of 1/8 to 7/8 of its tokens, of one token at least and never all. `worked`: of the lengths that were tried,
    which had a right completion. By bisection, as if what works from a head works from a longer one: None when the shortest
    one is known, or that none works. Each part of each question has samples of its own.
    """
    demonstration = question.demonstration or ()
    parts = {max(part * len(demonstration) // PARTS, 1): part for part in range(1, PARTS)}  # by the length of the head
    lengths = sorted(parts.keys() - {len(demonstration)})
    shortest = min((length for length, right in worked.items() if right), default=len(demonstration))
    failed = max((length for length, right in worked.items() if not right), default=0)
    left = [length for length in lengths if failed < length < shortest]
    if not left:
        return None
    middle = left[len(left) // 2]
    return Request(question.prompt, tuple(demonstration[:middle]), n, -1 - (question.id * PARTS + parts[middle]))


def hinted(question: Question, n: int, progress: float, rng: Random, *, chunks: int, count: Count) -> list[Request]:
    """n completions that all go on from the same hint, the first of up to `chunks` chunks of the demonstration; plain ones
    where it has none, or `count` gives 0 (UFT, arXiv:2505.16984).

    Chunks are of whole steps where the data have them, and else of tokens, as equal as can be. At least the last token of the
    demonstration is left to be sampled.
    """
    length = len(question.demonstration or ())
    ends = [*question.cuts, length] if question.cuts else list(range(1, length + 1))
    parts = min(chunks, len(ends))
    shown = count(parts, progress, rng) if parts else 0
    tokens = min(ends[round(shown / parts * len(ends)) - 1], length - 1) if shown else 0
    prefix = tuple((question.demonstration or ())[:tokens])
    return [Request(question.prompt, prefix, n, question.id)]


def binomial(chunks: int, progress: float, rng: Random, *, low: float, high: float, until: float) -> int:
    """Each chunk by itself with the chance low + (high - low) (1 + cos(pi · progress / until)) / 2; from `until` on none."""
    if progress >= until:
        return 0
    chance = low + (high - low) * (1 + math.cos(math.pi * progress / until)) / 2
    return sum(rng.random() < chance for _ in range(chunks))


def uniform(chunks: int, progress: float, rng: Random) -> int:
    """Any number of them, none and all included, over the whole run (R3)."""
    return rng.randint(0, chunks)


def staged(chunks: int, progress: float, rng: Random, *, until: float) -> int:
    """All of them at first, one fewer in each of chunks + 1 equal stages, from `until` on none."""
    return max(chunks - int(progress / until * (chunks + 1)), 0)
