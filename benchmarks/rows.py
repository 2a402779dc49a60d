"""The data of the cases: token ids drawn at random, lengths as real data has them. Ids 0 and 1 pad and end rows."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_WORD = 2
ANSWER = (32, 128)
"""Tokens of an answer, drawn uniformly: 80 in the mean."""


@dataclass(frozen=True)
class Document:
    """A demonstration: a prompt, which carries no loss, and a completion, which does."""

    prompt: list[int]
    completion: list[int]


@dataclass(frozen=True)
class Group:
    """A question and its answers, each with a reward. A preference pair has two: the chosen and the rejected one."""

    prompt: list[int]
    answers: list[list[int]]
    rewards: list[float]


def documents(
    count: int, vocabulary: int, *, length: int | None = None, mean: float = 5.0, longest: int = 512
) -> list[Document]:
    """Demonstrations of `length` tokens, or of lognormal lengths exp(N(mean, 0.7)) from 32 to `longest`; 40 % are prompt."""
    draw = random.Random(0)
    lengths = [length or min(longest, max(32, int(draw.lognormvariate(mean, 0.7)))) for _ in range(count)]
    return [Document(_words(draw, vocabulary, n * 2 // 5), _words(draw, vocabulary, n - n * 2 // 5)) for n in lengths]


def groups(count: int, size: int, prompt: int, vocabulary: int, *, answer: tuple[int, int] = ANSWER) -> list[Group]:
    """Questions of about `prompt` tokens, a third more or less, with `size` answers each of `answer` tokens."""
    lengths, words, rewards = random.Random(0), random.Random(1), random.Random(2)  # lengths do not hang on other sizes
    made: list[Group] = []
    for _ in range(count):
        asked = _words(words, vocabulary, max(8, int(prompt * lengths.uniform(0.7, 1.3))))
        answers = [_words(words, vocabulary, lengths.randint(*answer)) for _ in range(size)]
        made.append(Group(asked, answers, [rewards.gauss(0, 1) for _ in answers]))
    return made


def _words(draw: random.Random, vocabulary: int, count: int) -> list[int]:
    return [draw.randrange(FIRST_WORD, vocabulary) for _ in range(count)]
