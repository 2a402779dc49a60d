"""A teacher that a vLLM server has: log-probs of the student's tokens, asked for over HTTP."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.errors import EngineError, SetupError
from posttrain.estimator.divergence import Divergence
from posttrain.model.frozen.frozen import Frozen
from posttrain.model.head import ReferenceStates
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.scoring import Scorer
from posttrain.rollout.vllm.server import Server
from posttrain.settings.base import is_here
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.rollout import VLLMConfig

IDS = 4096  # of a vocabulary, that are compared at a time


class ServedTeacher(Frozen):
    """Scores rows under the model of a server that runs already, at temperature 1.

    Args:
        name: for messages.
        url: of the server.
        tokenizer: the student's, whose ids must be the server's tokens.
        allow_remote: the server may be on another machine, to which the rows are then sent.

    Raises:
        SetupError: it is elsewhere without leave, has several models, or another vocabulary.
        EngineError: it does not answer.
    """

    def __init__(self, name: str, url: str, tokenizer: Any, *, allow_remote: bool = False) -> None:
        super().__init__(None)
        who = f"model.teachers.{name}"
        if not is_here(url) and not allow_remote:
            raise SetupError(
                f"{who}: {url} is not on this machine, and every row would be sent there. Who wants that says "
                "--allow-remote-engine."
            )
        try:
            self._server = Server(url, VLLMConfig(mode="server"), controlled=False)
            self._check_vocabulary(tokenizer)
        except (EngineError, SetupError) as error:
            raise type(error)(f"{who}: {error}") from error
        self.context = self._server.context - 1
        """Tokens of a row, at most: a server answers with one more."""

    @property
    def label(self) -> str:
        """For people."""
        return f"{self._server.model}, served at {self._server.url}"

    @property
    def identity(self) -> dict[str, Any]:
        """As of a model that is loaded, as far as a server tells; where it is may change."""
        return {"weights": "served", "held": [], "revision": None, "config": {"served": self._server.model}}

    def place(self, accelerator: Any, distributed: DistributedConfig | None) -> None:
        """It has a place."""

    def logp(self, inputs: ModelInputs, loss_mask: Bool[Tensor, "B T"], scorer: Scorer) -> Float[Tensor, "B T"]:
        """See `Frozen`.

        Raises:
            SetupError: log-probs at another temperature are asked for.
            EngineError: the server failed.
        """
        if scorer.temperature != 1:
            raise SetupError(
                f"A teacher behind a server gives log-probs at temperature 1, and rollouts are sampled at "
                f"{scorer.temperature:g}: sample at 1, or load the teacher by its name."
            )
        carries = [i for i, mask in enumerate(loss_mask) if bool(mask.any())]
        if any(inputs.rows[i].inputs is not None for i in carries):
            raise SetupError(
                "A teacher behind a server tells of tokens that it reads itself, and a text that data.transforms: corrupt "
                "has changed is read as other tokens: load the teacher by its name, or leave corrupt out."
            )
        ids = [[*inputs.rows[i].prompt.tolist(), *inputs.rows[i].completion.tolist()] for i in carries]
        with ThreadPoolExecutor(1) as thread:  # the caller may run an event loop of its own
            scored = thread.submit(asyncio.run, self._server.logprobs(ids)).result()
        made = torch.zeros(loss_mask.shape)
        for i, logprobs in zip(carries, scored, strict=True):
            own = logprobs[len(logprobs) - len(inputs.rows[i].completion) :]
            made[i, : len(own)] = torch.tensor(own)
        return torch.where(loss_mask, made.to(loss_mask.device), 0.0)

    def states(self, inputs: ModelInputs, by: Divergence) -> ReferenceStates:
        """See `Frozen`; raises SetupError: no server gives whole distributions."""
        raise SetupError(
            "Whole distributions are compared, and a server gives log-probs of tokens: load the teacher by name."
        )

    def _check_vocabulary(self, tokenizer: Any) -> None:
        whole = range(len(tokenizer))
        for start in whole[::IDS]:
            ids = [*whole[start : start + IDS]]
            there = self._server.post("/detokenize", {"model": self._server.model, "tokens": ids}).json().get("prompt")
            if there != tokenizer.decode(ids):
                raise SetupError(
                    f"{self._server.model} has another vocabulary than the student: ids {ids[0]} to {ids[-1]} are "
                    "other text there. A teacher scores the student's token ids: serve one with the student's tokenizer."
                )
