"""The proof that an engine samples from the trainer's weights: one prompt, scored by both after a sync."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.errors import EngineError
from posttrain.estimator.batch import Batch
from posttrain.model.layout.padded import model_inputs
from posttrain.model.scoring import Scorer, output_head
from posttrain.rollout.engine import Completion, Sampling

PROMPT_TOKENS = 300
"""More than two blocks of vLLM's prefix cache, 128 tokens each on a CPU: a stale cache cannot be seen in a shorter prompt. A
model with a smaller context gets a shorter probe, which proves its weights but maybe not its cache."""
ANSWER_TOKENS = 8
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Nats, for the largest of the probe's log-probs. float32: engine and trainer agree to 2e-5, and a skipped sync showed as
0.007 at a learning rate of 1e-6. bfloat16: its 8 bits leave differences of some hundredths of a nat, so that there the probe
finds wrong or partial weights, and the version number a sync that was skipped."""


class Probe:
    """A fixed prompt, and an answer to it sampled at temperature 0.7, where raw and processed log-probs differ.

    Args:
        vocabulary: token ids are below it.
        context: the model's maximal length.
        pad_id: fills rows up.
    """

    def __init__(self, vocabulary: int, context: int, pad_id: int) -> None:
        rng, length = Random(0), max(1, min(PROMPT_TOKENS, context - ANSWER_TOKENS))
        self.prompt, self._pad_id = [rng.randrange(vocabulary) for _ in range(length)], pad_id
        self._given = [rng.randrange(vocabulary) for _ in range(ANSWER_TOKENS - 1)]
        self.sampling = Sampling(max_tokens=ANSWER_TOKENS, temperature=0.7)
        self._scorer = Scorer("whole", self.sampling.temperature)  # right for every model, and the probe is short

    def prompt_at(self, place: int) -> list[int]:
        """The prompt, followed by so many tokens of an answer that is given."""
        return [*self.prompt, *self._given[:place]]

    @torch.no_grad()
    def expected(self, model: Any) -> Float[Tensor, "places vocab"]:
        """The model's log-probs of every token at each place of the given answer, as an engine with its weights has them."""
        ids = torch.tensor([self.prompt_at(ANSWER_TOKENS - 1)], device=output_head(model).weight.device)
        training = model.training
        model.eval()
        try:
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=ANSWER_TOKENS).logits[0, -ANSWER_TOKENS:]
        finally:
            model.train(training)
        return (logits.float() / self.sampling.temperature).log_softmax(-1).cpu()

    def differences(self, model: Any, answers: Sequence[Completion]) -> list[float]:
        """The largest difference, in nats, between the log-probs of each answer and the model's."""
        prompt = np.array(self.prompt, np.int32)
        width = max(len(answer.tokens) for answer in answers)
        mask = torch.tensor([[t < len(answer.tokens) for t in range(width)] for answer in answers])
        rows = [Row(prompt, a.tokens, np.ones(len(a.tokens), np.bool_)) for a in answers]
        device = output_head(model).weight.device
        inputs = model_inputs(rows, Batch(loss_mask=mask), pad_id=self._pad_id).to(device)
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                own = self._scorer.score(model, inputs, mask.to(device)).logp.cpu()
        finally:
            model.train(training)
        theirs = torch.zeros(mask.shape, dtype=own.dtype)
        theirs[mask] = torch.tensor([logprob for answer in answers for logprob in answer.logprobs], dtype=own.dtype)
        return (own - theirs).abs().nan_to_num(nan=math.inf, posinf=math.inf).amax(1).tolist()

    def check(
        self,
        model: Any,
        answers: Mapping[str, Completion],
        version: int,
        bound: float | None,
        *,
        served: torch.dtype | None = None,
    ) -> tuple[float, dict[str, EngineError]]:
        """The largest difference of all engines, and the fault of each whose difference is not within the bound.

        Args:
            model: the trainer's.
            answers: to the probe, by the engine's name.
            version: of the weights that each should have.
            bound: in nats; if None, by the coarser of the dtypes that the model computes in and the engines serve.
            served: what the engines serve, where it is another dtype than the model's.
        """
        bound = bound_of(model, bound, served)
        differences = dict(zip(answers, self.differences(model, list(answers.values())), strict=True))
        return max(differences.values()), off(differences, version, bound)


def bound_of(model: Any, bound: float | None, served: torch.dtype | None) -> float:
    """In nats: `bound`, or that of the coarser of the dtypes that the model computes in and the engines serve."""
    weight = output_head(model).weight
    device = weight.device.type
    computed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    loosest = max(BOUNDS.get(dtype, BOUNDS[torch.bfloat16]) for dtype in (computed, served or computed))
    return loosest if bound is None else bound


def off(differences: Mapping[str, float], version: int, bound: float) -> dict[str, EngineError]:
    """The fault of each engine whose difference is not within the bound."""
    return {
        name: EngineError(
            f"After the sync to version {version} the log-probs of the probe by the engine {name} differ from the "
            f"trainer's by {difference:.3g} nats, over the bound of {bound:g}: it does not sample from the trainer's "
            "weights. Look for a sync that did not arrive whole, a prefix cache that was not reset, tied embeddings, or "
            "another logprobs_mode than processed_logprobs. The last checkpoint is whole."
        )
        for name, difference in differences.items()
        if not difference <= bound
    }
