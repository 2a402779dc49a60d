"""vLLM servers that another process started, and whose weights come from it as parcels."""

from __future__ import annotations

import math
import shutil

from posttrain.rollout.parcel import Parcel, Served
from posttrain.rollout.probe import ANSWER_TOKENS, Probe, off
from posttrain.rollout.transports import load_folder
from posttrain.rollout.vllm.backend import Answer
from posttrain.rollout.vllm.client import VLLMClient, unmoved
from posttrain.rollout.vllm.server import Server
from posttrain.rollout.vllm.servers import Servers


class ServedEngine(VLLMClient):
    """A `RolloutEngine` that is synced with parcels in place of models.

    Raises:
        EngineError: a server does not answer.
    """

    def __init__(self, served: Served) -> None:
        super().__init__(served.ends)
        self._backend = Servers([Server(url, served.config) for url in served.config.addresses])
        self._probe = Probe(served.vocabulary, self._backend.context, 0)
        self._known: tuple[int, dict[str, Answer]] | None = None

    def sync(self, model: Parcel, version: int) -> None:
        """See `RolloutEngine.sync`: the proof is `VLLMEngine.sync`'s, against what the trainer expects of the probe."""
        backend, known = self._running(), self._known
        self.version, self._known = -1, None
        if model.expected is not None:
            self._probed(tokens=1)
        load_folder(backend.rpc, model.folder)
        shutil.rmtree(model.folder, ignore_errors=True)
        backend.reset_prefix_cache()
        answers = self._probed()
        backend.take_out(unmoved(answers, known, model.fingerprint, version))
        if model.expected is not None:
            backend.take_out(off(self._differences(model), version, model.bound))
        self.version, self._known = version, (model.fingerprint, answers)

    def close(self) -> None:
        """The servers are another process's."""
        self._backend = None

    def _differences(self, parcel: Parcel) -> dict[str, float]:
        """The largest difference of each engine, over the places of the probe."""
        assert parcel.expected is not None
        largest: dict[str, float] = {}
        for place in range(ANSWER_TOKENS):
            for name, answer in self._probed(tokens=1, place=place).items():
                [token], [logprob] = answer.tokens, answer.logprobs
                difference = abs(float(parcel.expected[place, token]) - logprob)
                largest[name] = max(largest.get(name, 0.0), difference if difference == difference else math.inf)
        return largest
