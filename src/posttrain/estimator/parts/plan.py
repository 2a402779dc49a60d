"""What is sampled for a question, before generation: `(question, n, progress, rng) -> requests`."""

from __future__ import annotations

from random import Random

from posttrain.estimator.batch import Question, Request


def plain(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
    """n completions of the prompt; nothing for an algorithm without rollouts."""
    return [Request(question.prompt, n=n, question=question.id)] if n else []
