"""Generated arithmetic tasks that a model of under a million parameters can learn on a CPU, each with its verifier.

Splits are disjoint whatever the seed: a prompt belongs to one of train, validation and held_out by a hash of its text, and
ood asks harder questions than any of them has. A share of the others' questions can be hard. The same (task, split, seed,
share) gives the same rows, in order.

    chain           7+4*3-2+9=   →  1310#2 or #2   left to right, modulo 10; with the running values, or without
    running_totals  7+4*3-2=     →  131            the running values, all of which must be right
    countdown       3,5,7=22     →  3*5+7          each number once, to make the target; any solution is right
"""

from __future__ import annotations

import ast
import operator
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "validation", "held_out", "ood"]
Level = Literal["plain", "hard", "ood"]
ALPHABET = "0123456789+-*=#,()"
_HELD = {0: "validation", 1: "held_out"}
_BUCKETS = 10  # a tenth of all prompts for validation, a tenth held out


@dataclass(frozen=True, slots=True)
class Item:
    """One question: its demonstration, a wrong completion of the same form, and the answer that the verifier asks for."""

    prompt: str
    completion: str
    rejected: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """A generator of items of a level; a verifier of (completion, prompt, answer); and what a completion answers."""

    make: Callable[[Random, Level], Item]
    verify: Callable[[str, str, str], bool]
    answer: Callable[[str], str | None]


def generate(task: str, split: Split, rows: int, seed: int, hard: float = 0.0) -> Iterator[Item]:
    """`rows` items of a split, repetitions possible in the training split only; a share `hard` of them is hard.

    Raises:
        ValueError: the split has fewer different questions.
    """
    make, rng = TASKS[task].make, Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    for row in range(rows):
        level = "ood" if split == "ood" else "hard" if int((row + 1) * hard) > int(row * hard) else "plain"
        for _attempt in range(10_000):
            item = make(rng, level)
            belongs = split == "ood" or split == split_of(item.prompt)
            if belongs and (split == "train" or item.prompt not in seen):
                break
        else:
            raise ValueError(f"task {task!r} has fewer than {rows} different questions in its split {split!r}.")
        seen.add(item.prompt)
        yield item


def split_of(prompt: str) -> str:
    """The split that a text belongs to, whatever the seed: train, validation or held_out."""
    return _HELD.get(zlib.crc32(prompt.encode()) % _BUCKETS, "train")


_SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def _chain(rng: Random, length: int) -> tuple[str, str]:
    value = rng.randrange(10)
    prompt, running = str(value), ""
    for _ in range(length):
        sign, other = rng.choice("+-*"), rng.randrange(1, 10)
        value = _SIGNS[sign](value, other) % 10
        prompt, running = f"{prompt}{sign}{other}", f"{running}{value}"
    return f"{prompt}=", running


def _make_chain(rng: Random, level: Level) -> Item:
    prompt, running = _chain(rng, {"plain": 4, "hard": 5, "ood": 6}[level])
    answer, wrong = running[-1], _other_digit(rng, running[-1])
    if rng.random() < 0.5:
        return Item(prompt, f"{running}#{answer}", f"{running[:-1]}{wrong}#{wrong}", answer)
    return Item(prompt, f"#{answer}", f"#{wrong}", answer)


def _other_digit(rng: Random, digit: str) -> str:
    return str((int(digit) + rng.randrange(1, 10)) % 10)


def _answer_of_chain(completion: str) -> str | None:
    match = re.fullmatch(r"[0-9]*#([0-9])", completion)
    return match[1] if match is not None else None


def _verify_chain(completion: str, prompt: str, answer: str) -> bool:
    return _answer_of_chain(completion) == answer


def _make_running_totals(rng: Random, level: Level) -> Item:
    prompt, running = _chain(rng, {"hard": 5, "ood": 6}[level] if level != "plain" else rng.choice((1, 2, 3)))
    return Item(prompt, running, running[:-1] + _other_digit(rng, running[-1]), running)


def _verify_running_totals(completion: str, prompt: str, answer: str) -> bool:
    return completion == answer


def _whole(completion: str) -> str | None:
    return completion or None


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def _make_countdown(rng: Random, level: Level) -> Item:
    while True:
        numbers = [rng.randrange(1, 20) for _ in range({"plain": 3, "hard": 4, "ood": 5}[level])]
        expression, wrong = (_joined(rng, numbers) for _ in range(2))
        target = _arithmetic(expression)
        if 0 < target < 100 and _arithmetic(wrong) != target:
            shown = ",".join(map(str, sorted(numbers)))
            return Item(f"{shown}={target}", expression, wrong, str(target))


def _joined(rng: Random, numbers: list[int]) -> str:
    return str(numbers[0]) + "".join(f"{rng.choice('+-*')}{number}" for number in numbers[1:])


def _verify_countdown(completion: str, prompt: str, answer: str) -> bool:
    if len(completion) > 64 or not re.fullmatch(r"[0-9+\-*()]+", completion):
        return False
    if sorted(re.findall(r"[0-9]+", completion)) != sorted(prompt.split("=")[0].split(",")):
        return False
    try:
        return _arithmetic(completion) == int(answer)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _arithmetic(expression: str) -> int:
    """The value of +, -, * over whole numbers; nothing of the text is executed."""
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"not plain arithmetic: {ast.dump(node)}")


TASKS = {
    "chain": Task(_make_chain, _verify_chain, _answer_of_chain),
    "running_totals": Task(_make_running_totals, _verify_running_totals, _whole),
    "countdown": Task(_make_countdown, _verify_countdown, _whole),
}
