"""The cases of one step, by name: their shapes, and their contenders, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import head
import our_steps
import trl_steps
import work
from head import HeadShape
from models import Spec
from rows import ANSWER, documents, groups
from targets import LENGTHS, VOCABULARIES
from timing import Contender

Make = Callable[[], Contender]


@dataclass(frozen=True)
class Case:
    """Contenders on the same data and weights. The first is what the losses and gradient norms of the others are held to.

    rounds: of timing. peak: the memory of a step is measured too. work: floating-point operations that a step must do.
    """

    name: str
    shape: Mapping[str, Any]
    makes: Mapping[str, Make]
    rounds: int = 3
    peak: bool = False
    work: float = 0.0


def head_case(name: str, shape: HeadShape, rounds: int) -> Case:
    """The output layer alone."""
    makes: dict[str, Make] = {
        "naive": partial(head.naive, shape),
        "ours": partial(head.ours, shape),
        "ours, any loss": partial(head.ours, shape, head.ours_head_for_any_loss),
        "three products": partial(head.floor, shape),
        "our three products": partial(head.floor, shape, ours=True, rows=256),
        "TRL": partial(head.trl, shape),
    }
    if head.has_linear_cross_entropy():
        makes["torch linear_cross_entropy"] = partial(head.linear_cross_entropy, shape)
    return Case(name, asdict(shape), makes, rounds)


def sft_case(
    name: str,
    spec: Spec,
    *,
    count: int = 16,
    length: int | None = None,
    mean: float = 5.0,
    longest: int = 512,
    packed: bool = True,
    **options: Any,
) -> Case:
    """One step of SFT on `count` documents, of `length` tokens or of lognormal lengths."""
    data = documents(count, spec.vocabulary, length=length, mean=mean, longest=longest)
    makes: dict[str, Make] = {"TRL": partial(trl_steps.sft, spec, data), "ours": partial(our_steps.sft, spec, data)}
    if packed:
        makes["TRL packed"] = partial(trl_steps.sft, spec, data, packed=True)
    tokens = sum(len(each.prompt) + len(each.completion) for each in data)
    shape = {**spec.described(), "documents": count, "length": length, "tokens": tokens}
    return Case(name, shape, makes, work=work.of_documents(spec, data), **options)


def grpo_case(
    name: str, spec: Spec, *, questions: int, size: int, prompt: int, answer: tuple[int, int] = ANSWER, **options: Any
) -> Case:
    """One update of GRPO: no KL, on policy."""
    data = groups(questions, size, prompt, spec.vocabulary, answer=answer)
    makes: dict[str, Make] = {"TRL": partial(trl_steps.grpo, spec, data), "ours": partial(our_steps.grpo, spec, data)}
    shape = {**spec.described(), "questions": questions, "group": size, "prompt": prompt}
    return Case(name, shape, makes, work=work.of_groups(spec, data), **options)


def dpo_case(name: str, spec: Spec, *, pairs: int, prompt: int, answer: tuple[int, int] = ANSWER, **options: Any) -> Case:
    """One step of DPO, with the reference's forward, and with its log-probs kept."""
    data = groups(pairs, 2, prompt, spec.vocabulary, answer=answer)
    makes: dict[str, Make] = {
        "TRL": partial(trl_steps.dpo, spec, data),
        "ours": partial(our_steps.dpo, spec, data),
        "TRL, reference kept": partial(trl_steps.dpo, spec, data, kept=True),
        "ours, reference kept": partial(our_steps.dpo, spec, data, kept=True),
    }
    return Case(name, {**spec.described(), "pairs": pairs, "prompt": prompt}, makes, **options)


def _all() -> list[Case]:
    small = Spec(vocabulary=4096)
    two = partial(grpo_case, spec=small, questions=2)
    return [
        head_case("head-32k", HeadShape(vocabulary=32768), rounds=7),
        head_case("head-152k", HeadShape(vocabulary=151936), rounds=3),
        sft_case("sft-8k", Spec(vocabulary=8192), peak=True),
        sft_case("sft-32k", Spec(vocabulary=32768), peak=True),
        grpo_case("grpo-128", Spec(vocabulary=8192), questions=4, size=8, prompt=128, peak=True),
        two("grpo-512", size=8, prompt=512, peak=True),
        dpo_case("dpo", Spec(vocabulary=8192), pairs=4, prompt=128, peak=True, rounds=4),
        two("prompt-64", size=8, prompt=64),
        two("prompt-128", size=8, prompt=128),
        two("prompt-256", size=8, prompt=256),
        two("group-2", size=2, prompt=128),
        two("group-4", size=4, prompt=128),
        two("group-16", size=16, prompt=128),
        *(sft_case(f"vocabulary-{v}", Spec(vocabulary=v), count=8, length=128, packed=False) for v in VOCABULARIES),
        *(sft_case(f"length-{n}", small, count=2048 // n, length=n, packed=False) for n in LENGTHS),
    ]


STEPS: dict[str, Case] = {case.name: case for case in _all()}
