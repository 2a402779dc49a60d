"""From a collection to losses: log-probs of the old and the reference policy, advantages, the counts of each optimizer
step, and its micro-batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from posttrain.data.rows import Example, Row
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Batch, Origin
from posttrain.estimator.loss import LossOutput, policy_gradient_loss
from posttrain.estimator.slopes import TokenSlopes
from posttrain.model.frozen.compared import Compared
from posttrain.model.frozen.frozen import Frozen
from posttrain.model.frozen.reference import Reference
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.make import Rows
from posttrain.model.scoring import Scorer, Scores
from posttrain.train.anchor import make_anchor
from posttrain.train.collect.collection import Collection, Counted
from posttrain.train.collect.demonstrations import collect_demonstrations
from posttrain.train.collect.flat import Flat
from posttrain.train.watch.metrics import gap_shares
from posttrain.train.watch.sources import BySource

Made = tuple[Batch, ModelInputs]
Micro = list[int]
"""A micro-batch, as units of a collection. An empty one runs a row without loss, for every rank must run backward."""

KEPT_AT_A_TIME = 1024  # examples whose reference log-probs are made together


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One optimizer step on this rank: its micro-batches, and the counts of the whole step.

    `offered` are the tokens of all its rows, and of a collection's first step those beside it; `tokens` those of rows that
    are read, over all ranks, whatever their layout (a prompt that answers share counts for each); of those that carry loss
    `sampled` are rollouts' and `demonstrated` are demonstrations'; `skipped` is the share of rows that carry no signal.
    """

    collection: Collection
    micro: list[Micro]
    counts: dict[str, Float[Tensor, ""]]
    offered: int
    tokens: int
    sampled: int
    demonstrated: int
    skipped: float
    where: tuple[str, ...]
    sources: BySource


@dataclass(frozen=True, slots=True)
class MicroLoss:
    """The loss of one micro-batch; and which of its rows' log-probs, advantages and rewards are all finite, [B]."""

    output: LossOutput
    finite: Bool[Tensor, " B"]


class Learner:
    """An algorithm over a model: scores rows, a micro-batch at a time, and makes losses of them.

    Args:
        algorithm: whose needs and losses these are.
        reference: the start model, where the algorithm needs one.
        accelerator: of accelerate: device, ranks and autocast.
        scorer: how tokens are scored.
        layout: how rows are laid out for the model.
        teacher: where the algorithm learns from one.
        rows: units of a micro-batch, at most. tokens: tokens of it that the model reads, padding included, at most.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        reference: Reference | None,
        accelerator: Any,
        *,
        scorer: Scorer,
        layout: Rows,
        rows: int | None,
        tokens: int | None,
        teacher: Frozen | None = None,
    ) -> None:
        self._algorithm, self._accelerator = algorithm, accelerator
        self._compared = Compared(algorithm, reference, teacher, scorer)
        self._scorer, self._layout, self._bounds = scorer, layout, {"rows": rows, "tokens": tokens}
        self._one_pass = scorer.head == "one_pass" and algorithm.needs.scope == "token" and not algorithm.needs.collision
        self._beside = accelerator.device.type != "cpu"  # on a CPU it would take the time from the one that runs
        self._kept: dict[Row, Float[Tensor, " t"]] = {}
        self._imitates = algorithm.needs.unit == 1 and not algorithm.needs.rollouts
        self.anchor = make_anchor(algorithm.needs)

    def open(self, model: nn.Module, collection: Collection, *, follow: bool = True) -> Collection:
        """The collection with the log-probs that its advantages and later updates need, and with its advantages; `follow`
        where it is to be learnt from.
        """
        flat, needs = self._with_own_scores(model, collection), self._algorithm.needs
        for name, score in self._compared.scores.items() if needs.rollouts else ():
            if flat.get(name) is None:
                made: Any = {name: self._collected(collection, score)}
                flat = flat.replace(**made)
        if self._kept and all(row in self._kept for row in collection.rows):
            flat = flat.replace(ref_logp=torch.cat([self._kept[row] for row in collection.rows]))
        if self.anchor is not None:
            flat = flat.replace(anchor=self.anchor.of(collection, partial(self._gains, model), follow=follow))
        whole = flat.batch()
        flat = flat.changed(whole, self._algorithm.prepare(whole))
        carries = flat.fields["loss_mask"].clone()
        for row in collection.muted:
            carries[flat.span(row)] = False
        return dataclasses.replace(collection, flat=flat.replace(loss_mask=carries))

    def keep_reference(self, examples: Sequence[Example]) -> None:
        """Makes the reference's log-probs of a data set whose rows are read more than once, and keeps them, on every rank."""
        score = self._compared.kept
        if score is None or examples[0].rows[0] in self._kept:
            return
        for start in range(0, len(examples), KEPT_AT_A_TIME):
            collection = collect_demonstrations(examples[start : start + KEPT_AT_A_TIME], progress=0.0)
            logps = self._collected(collection, score)
            for i, row in enumerate(collection.rows):
                self._kept[row] = logps[collection.flat.span(i)].clone()

    def step(self, collection: Collection, number: int, progress: float) -> Step:
        """What an opened collection's step `number` is made of. Rows without signal are left out, after the counts.

        Where no row has any, one unit is read all the same: backward must run, and the gap to the sampler is measured on it.
        """
        collection = dataclasses.replace(collection, flat=collection.flat.replace(progress=progress))
        units, device = collection.steps[number], self._accelerator.device
        whole = Counted.of(self._algorithm, collection, units)
        kept = [unit for unit, carries in zip(units, whole.carries, strict=True) if carries]
        read = kept or units[:1]
        of_read = whole if len(read) == len(units) else Counted.of(self._algorithm, collection, read)
        counts = whole.counts | {name: count for name, count in of_read.counts.items() if name.endswith("/tokens")}
        rows, read_rows = ([row for unit in of for row in collection.units[unit]] for of in (units, read))
        return Step(
            collection,
            self._dealt(collection, read),
            {name: count.to(device) for name, count in counts.items()},
            offered=sum(len(collection.rows[row]) for row in rows) + (0 if number else collection.aside),
            tokens=sum(len(collection.rows[row]) for row in read_rows),
            sampled=of_read.sampled,
            demonstrated=of_read.demonstrated,
            skipped=1 - len(read_rows) / len(rows) if kept else 1.0,
            where=tuple(collection.where[unit] for unit in units),
            sources=BySource.of(collection, units, read, demonstrations=self._imitates),
        )

    def halved(self, step: Step) -> Step | None:
        """The same step, and those after it, in micro-batches of half the tokens; None where the largest is one unit."""
        largest = max(step.micro, key=lambda micro: self._read(step.collection, micro))
        if len(largest) < 2:
            return None
        self._bounds["tokens"] = self.micro_batch_tokens(step) // 2
        units = sorted(unit for micro in step.micro for unit in micro)
        return dataclasses.replace(step, micro=self._dealt(step.collection, units))

    def micro_batch_tokens(self, step: Step) -> int:
        """Tokens of its largest micro-batch on this rank, as the bound counts them."""
        return max(self._read(step.collection, micro) for micro in step.micro)

    def made(self, step: Step) -> Iterator[tuple[Micro, Made]]:
        """Its micro-batches, as `loss` takes them. For a GPU the next is made in a thread beside while one runs."""
        if not self._beside:
            yield from ((micro, self._made(step.collection, micro)) for micro in step.micro)
            return
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._made, step.collection, step.micro[0])
            for micro, following in zip(step.micro, [*step.micro[1:], None], strict=True):
                made = coming.result()
                if following is not None:
                    coming = thread.submit(self._made, step.collection, following)
                yield micro, made

    def loss(self, model: nn.Module, step: Step, micro: Micro, made: Made | None = None) -> MicroLoss:
        """The loss of one micro-batch, divided by the counts of the whole step; `made` as `made` gave it, if it did."""
        with self._accelerator.autocast():  # policy and reference alike: where they agree, they agree exactly
            local, inputs = self._there(made or self._made(step.collection, micro))
            local, needs, by = self._compared.completed(inputs, local), self._algorithm.needs, self._algorithm.divergence
            options: Any = {"entropy": needs.entropy, "reference": self._compared.states(inputs)}

            def loss_of(scores: Scores) -> LossOutput:
                whole: Any = {"entropy": scores.entropy, by.name: scores.divergence}
                return policy_gradient_loss(self._algorithm, scores.logp, scores.beside(local), counts=step.counts, **whole)

            if self._one_pass and torch.is_grad_enabled():
                slopes = TokenSlopes(self._algorithm, local, inputs.index, step.counts)
                scores, output = self._scorer.loss_in_one_pass(model, inputs, local.loss_mask, loss_of, slopes, **options)
            else:
                scores = self._scorer.score(model, inputs, local.loss_mask, collision=needs.collision, **options)
                output = loss_of(scores)
        if local.behavior_logp is not None and step.sampled:
            own = scores.logp if local.old_logp is None or needs.old_of_sampler else local.old_logp
            output.metrics.update(gap_shares(local, own, step.sampled))
        output.metrics.update(step.sources.nll(step.collection, micro, scores.logp, local.loss_mask))
        given = [values for values in (local.advantage, local.reward) if values is not None]
        finite = [values.isfinite().view(len(values), -1).all(-1) for values in (scores.logp.detach(), *given)]
        return MicroLoss(output, torch.stack(finite).all(0))

    def _there(self, made: Made) -> Made:
        device = self._accelerator.device
        return made[0].to(device), made[1].to(device)

    def _made(self, collection: Collection, micro: Micro) -> Made:
        index = [row for unit in micro or [0] for row in collection.units[unit]]
        local, rows = collection.flat.batch(index), [collection.rows[row] for row in index]
        if not micro:
            local = local.replace(loss_mask=torch.zeros_like(local.loss_mask))
        return local, self._layout.inputs(rows, local)

    def _read(self, collection: Collection, micro: Micro) -> int:
        return self._layout.tokens([collection.rows[row] for unit in micro for row in collection.units[unit]])

    def _dealt(self, collection: Collection, units: Sequence[int]) -> list[Micro]:
        rows = [[collection.rows[row] for row in collection.units[unit]] for unit in units]
        dealt = self._layout.deal(rows, ranks=self._accelerator.num_processes, **self._bounds)
        return [[units[i] for i in micro] for micro in dealt[self._accelerator.process_index]]

    def _with_own_scores(self, model: nn.Module, collection: Collection) -> Flat:
        """What is known of the collection, with the collecting policy's log-probs and entropies as far as the algorithm asks
        for them.

        A token's log-prob is the trainer's, or the sampler's on what it wrote if the algorithm takes that. One forward makes
        all that is the trainer's, of the rows that need it.
        """
        flat, needs, behavior = collection.flat, self._algorithm.needs, collection.flat.get("behavior_logp")
        entropy = needs.collected_entropy != "none" and flat.get("entropy") is None
        old = needs.old_logp and flat.get("old_logp") is None
        if not entropy and not old:
            return flat
        if needs.old_of_sampler and behavior is None:
            raise ValueError("old: sampler needs Batch.behavior_logp, and the collection has none.")
        whole = (old and not needs.old_of_sampler) or (entropy and needs.collected_entropy == "rows")
        units = None if whole else self._with_demonstrations(collection)
        made = torch.zeros(int(flat.lengths.sum()), 1 + entropy, dtype=getattr(behavior, "dtype", None))
        if units is None or units:

            def scored(inputs: ModelInputs, local: Batch) -> Tensor:
                scores = self._policy(model, inputs, local, entropy=entropy)
                return torch.stack([one for one in (scores.logp, scores.entropy) if one is not None], -1)

            made = self._collected(collection, scored, units)
        own, *entropies = (one.contiguous() for one in made.unbind(-1))
        if entropies:
            flat = flat.replace(entropy=entropies[0])
        if old and behavior is not None and needs.old_of_sampler:
            own = torch.where(flat.of_tokens("origin") == Origin.ROLLOUT, behavior.to(own.dtype), own)
        return flat.replace(old_logp=own) if old else flat

    def _with_demonstrations(self, collection: Collection) -> list[int]:
        flat = collection.flat
        shown = flat.any(flat.fields["loss_mask"] & (flat.of_tokens("origin") == Origin.DEMO))
        return [unit for unit, rows in enumerate(collection.units) if shown[list(rows)].any()]

    def _policy(self, model: nn.Module, inputs: ModelInputs, local: Batch, *, entropy: bool = False) -> Scores:
        training = model.training
        model.eval()
        try:
            return self._scorer.score(model, inputs, local.loss_mask, entropy=entropy)
        finally:
            model.train(training)

    def _gains(self, model: nn.Module, collection: Collection) -> Float[Tensor, " n"]:
        def gain(inputs: ModelInputs, local: Batch) -> Tensor:
            return self._policy(model, inputs, local).logp - self._compared.scores["ref_logp"](inputs, local)

        return self._collected(collection, gain)

    @torch.no_grad()
    def _collected(
        self, collection: Collection, score: Callable[[ModelInputs, Batch], Tensor], units: Sequence[int] | None = None
    ) -> Float[Tensor, "n *k"]:
        """Scores of all tokens of the collection, or of some units' and 0 elsewhere, on CPU: each rank makes its share, and
        all get all of them.
        """
        flat, placed = collection.flat, list[Tensor]()
        for micro in self._dealt(collection, range(len(collection.units)) if units is None else units) or [[]]:
            with self._accelerator.autocast():
                local, inputs = self._there(self._made(collection, micro))
                values = score(inputs, local)
            if not placed:
                placed.append(values.new_zeros(int(flat.lengths.sum()), *values.shape[2:]))
            for i, row in enumerate(row for unit in micro for row in collection.units[unit]):
                placed[0][flat.span(row)] = values[i, : flat.lengths[row]]
        return self._accelerator.reduce(placed[0], "sum").cpu()
