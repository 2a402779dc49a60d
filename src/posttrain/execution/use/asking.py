"""A model that is asked: prompts as its run made them, answers one after another or as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers import TextStreamer

from posttrain.data.answers import AnswerText, prompt_text
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.reader import Reader
from posttrain.data.rows import BadRow, DataReport, Problem
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.estimator.batch import Request
from posttrain.execution.use.chosen import Chosen
from posttrain.model.load import context_of, load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.make import make_engine
from posttrain.settings.model import ModelConfig
from posttrain.settings.rollout import SamplingConfig

TOGETHER = 64  # prompts that are asked at a time, so that the first answers are there before the last


class Asked:
    """A model that is loaded, with its tokenizer.

    Args:
        chosen: which one.
        dtype: of its weights, by its name in torch.

    Raises:
        SetupError: it cannot be found or read.
    """

    def __init__(self, chosen: Chosen, dtype: str) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._dtype, self._encoding = dtype, chosen.encoding
        self.model, self.tokenizer = load(ModelConfig(name=chosen.place, dtype=dtype), seed=0)  # type: ignore[arg-type]
        self.model.eval()
        if torch.cuda.is_available():
            self.model = self.model.cuda()
        self._ends, self._context = eos_ids(self.model, self.tokenizer), context_of(self.model)

    def engine(self, kind: str) -> RolloutEngine:
        """hf or vllm, with the model's weights.

        Raises:
            SetupError: it is not installed, or cannot serve the model.
        """
        config = SamplingConfig.model_validate({"engine": kind})
        engine = make_engine(config, self.model, self.tokenizer, compute=self._dtype, allow_remote=False)
        engine.sync(self.model, 0)
        return engine

    def problems(self, records: Sequence[Record], room: int) -> tuple[list[Problem], DataReport]:
        """Prompts as token ids, each with `room` tokens left for an answer; what has none is in the report.

        Raises:
            DataError: no row can be used.
        """
        encoding = self._encoding.model_copy(update={"on_bad_row": "skip"})
        reader = Reader(encoding, self.tokenizer, self._ends, self._context)
        return reader.problems(records, room=room, needs=(), anything=True, label="the prompts")

    def answers(
        self, problems: Sequence[Problem], engine: RolloutEngine, sampling: Sampling, n: int
    ) -> Iterator[Mapping[str, Any]]:
        """`n` answers to each, in their order, as they come: prompt and where it stands, completion, tokens, finish."""
        text = AnswerText(self.tokenizer)
        for start in range(0, len(problems), TOGETHER):
            asked = problems[start : start + TOGETHER]
            requests = [Request(one.prompt, n=n, question=start + i) for i, one in enumerate(asked)]
            for problem, answered in zip(asked, engine.generate(requests, sampling), strict=True):
                for one in answered:
                    yield {
                        "where": problem.where,
                        "prompt": prompt_text(problem.columns["prompt"]),
                        "completion": text.of(problem.prompt, problem.columns, one.tokens),
                        "tokens": len(one.tokens),
                        "finish": one.finish,
                    }

    def reply(self, turns: Sequence[Mapping[str, str]], sampling: Sampling, heard: Callable[[str], None]) -> tuple[str, str]:
        """The answer to a conversation, told word by word as it comes; and why it ended: stop or length.

        Raises:
            DataError: the conversation has no room for an answer, or the tokenizer has no chat template.
        """
        limit = None if self._context is None else self._context - 1
        encoder = Encoder(self.tokenizer, self._encoding, self._ends, limit)
        try:
            ids, _ = encoder.prompt({"prompt": list(turns)})
        except BadRow as error:
            raise DataError(f"{error}. Begin a new conversation: /new.") from None
        room = sampling.max_tokens if self._context is None else min(sampling.max_tokens, self._context - len(ids))
        torch.manual_seed(sampling.seed + len(turns))
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        given = torch.tensor([ids], device=self.model.device)
        with torch.no_grad():
            made = self.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=room,
                do_sample=sampling.temperature > 0,
                eos_token_id=self._ends,
                pad_token_id=self.tokenizer.pad_token_id,
                streamer=_Heard(self.tokenizer, heard),
                **(drawn if sampling.temperature > 0 else {}),
            )
        answer = made[0, len(ids) :].tolist()
        ended = bool(answer) and answer[-1] in self._ends
        return self.tokenizer.decode(answer, skip_special_tokens=True), "stop" if ended else "length"


class _Heard(TextStreamer):
    """Hands on the text of an answer as it becomes whole words."""

    def __init__(self, tokenizer: Any, heard: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._told = heard

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """See transformers."""
        self._told(text)
