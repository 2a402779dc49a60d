"""Who writes: the model as a stage starts, one that is loaded for it, or one behind a server. Questions in, texts out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from posttrain.data.answers import AnswerText, is_conversation
from posttrain.data.encoding.prompts import Prompts
from posttrain.data.rows import Problem
from posttrain.errors import DataError, EngineError, SetupError
from posttrain.estimator.batch import Request
from posttrain.execution.prepare.collect.answer import Said
from posttrain.model.load import context_of, load
from posttrain.model.pretrained.model import with_adapter
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.proofs.identity import identity
from posttrain.model.scoring import computing
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling, sample_seed
from posttrain.rollout.make import make_engine
from posttrain.rollout.vllm.server import Server
from posttrain.settings.base import is_here
from posttrain.settings.data import Encoding
from posttrain.settings.model import ModelConfig, TeacherConfig
from posttrain.settings.rollout import SamplingConfig, VLLMConfig

AT_ONCE = 32  # requests that a server is sent at a time
ATTEMPTS = 4  # of one whose connection breaks: its seed makes them one and the same

Numbered = Sequence[tuple[int, Problem]]


class Writer(Protocol):
    """Answers questions, each of which has a number that its seeds are made of."""

    @property
    def reads(self) -> tuple[Any, list[int], int | None]:
        """The tokenizer of what it is asked, the ids that end an answer, and the tokens of both together, at most."""
        ...

    def identity(self) -> dict[str, Any]:
        """What it is, to be written as JSON."""
        ...

    def write(self, asked: Numbered, n: int) -> list[list[Said]]:
        """So many answers to each question.

        Raises:
            EngineError: it failed.
        """
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, sampled by an engine.

    Args:
        model: whose weights the engine has.
        tokenizer: of the model.
        engine: that samples.
        sampling: how.
        bf16: products are made in it.
        joins: an answer's row has the beginning that stands in the prompt already, so that the text is without it.
    """

    model: Any
    tokenizer: Any
    engine: RolloutEngine
    sampling: Sampling
    bf16: bool
    joins: bool

    @property
    def reads(self) -> tuple[Any, list[int], int | None]:
        """See `Writer`."""
        return self.reads_of(self.model, self.tokenizer)

    @staticmethod
    def reads_of(model: Any, tokenizer: Any) -> tuple[Any, list[int], int | None]:
        """The same of any model."""
        return tokenizer, eos_ids(model, tokenizer), context_of(model)

    def identity(self) -> dict[str, Any]:
        """See `Writer`."""
        return identity(self.model)

    def write(self, asked: Numbered, n: int) -> list[list[Said]]:
        """See `Writer`."""
        text = AnswerText(self.tokenizer)
        requests = [Request(problem.prompt, n=n, question=number) for number, problem in asked]
        with computing(self.model, bf16=self.bf16):
            groups = self.engine.generate(requests, self.sampling)
        return [
            [self._said(text, problem, one) for one in completions]
            for (_, problem), completions in zip(asked, groups, strict=True)
        ]

    def _said(self, text: AnswerText, problem: Problem, one: Completion) -> Said:
        whole, begun = text.of(problem.prompt, problem.columns, one.tokens), ""
        if self.joins or _is_begun(problem):
            begun = text.prefill(problem.prompt, problem.columns)
        return Said(whole[len(begun) :], len(one.tokens), one.finish == "stop", begun)

    def close(self) -> None:
        """See `Writer`."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A model behind a server with vLLM's routes, which is sent messages, or text where there is no chat template.

    Args:
        who: the key that names it, for messages.
        url: of the server.
        student: what `Writer.reads` is: the server makes tokens of what it is sent by itself.
        encoding: the template of what is asked.
        sampling: how.
        allow_remote: it may be on another machine.

    Raises:
        SetupError: it is elsewhere without leave, or has several models.
        EngineError: it does not answer.
    """

    server: Server
    student: tuple[Any, list[int], int | None]
    encoding: Encoding
    sampling: Sampling

    @property
    def reads(self) -> tuple[Any, list[int], int | None]:
        """See `Writer`."""
        return self.student

    def identity(self) -> dict[str, Any]:
        """As far as a server tells; where it is may change."""
        return {"served": self.server.model}

    def write(self, asked: Numbered, n: int) -> list[list[Said]]:
        """See `Writer`."""
        bodies = [self._body(number, problem, sample) for number, problem in asked for sample in range(n)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(self._answer, bodies))
        return [answers[i * n : (i + 1) * n] for i in range(len(asked))]

    def close(self) -> None:
        """It runs on."""

    def _body(self, number: int, problem: Problem, sample: int) -> dict[str, Any]:
        s = self.sampling
        more = {"stop": list(s.stop), "include_stop_str_in_output": True} if s.stop else {}
        more |= {"top_k": s.top_k} if s.top_k else {}
        seed = sample_seed(s, number, sample) % 2**63
        options = {"max_tokens": s.max_tokens, "temperature": s.temperature, "top_p": s.top_p, "seed": seed, **more}
        return {"model": self.server.model, **self._said(problem), **options}

    def _said(self, problem: Problem) -> dict[str, Any]:
        prompt: Any = problem.columns["prompt"]
        if not is_conversation(prompt):
            text = Prompts(self.encoding.prompt_template).text(problem.columns)
            if not self.encoding.chat_template:
                return {"prompt": text}
            prompt = [{"role": "user", "content": text}]
        elif _is_begun(problem):
            raise DataError(
                f"{problem.where}: its prompt ends in a turn of the assistant, which no server is asked to go on."
            )
        system = self.encoding.system_prompt
        turns = [{"role": "system", "content": system}] if system is not None and prompt[0].get("role") != "system" else []
        tools = {"tools": problem.columns["tools"]} if problem.columns.get("tools") else {}
        kwargs = self.encoding.chat_template_kwargs
        return {"messages": [*turns, *prompt], **tools, **({"chat_template_kwargs": kwargs} if kwargs else {})}

    def _answer(self, body: dict[str, Any]) -> Said:
        reply = self._reply("/v1/chat/completions" if "messages" in body else "/v1/completions", body)
        try:
            found = reply.json()
            choice = found["choices"][0]
            text = choice["message"]["content"] if "messages" in body else choice["text"]
            return Said(text or "", int(found["usage"]["completion_tokens"]), choice["finish_reason"] == "stop")
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise EngineError(f"The server at {self.server.url} gave no text: {reply.text[:300]}") from error

    def _reply(self, path: str, body: dict[str, Any]) -> httpx.Response:
        for _ in range(ATTEMPTS - 1):
            try:
                return self.server.post(path, body)
            except EngineError as error:
                if not isinstance(error.__cause__, httpx.TransportError):
                    raise
        return self.server.post(path, body)


def served(who: str, url: str, *, allow_remote: bool) -> Server:
    """A server that writes.

    Raises:
        SetupError: it is elsewhere without leave, or has several models.
        EngineError: it does not answer.
    """
    check_place(who, url, allow_remote=allow_remote)
    try:
        return Server(url, VLLMConfig(mode="server"), controlled=False)
    except (EngineError, SetupError) as error:
        raise type(error)(f"{who}: {error}") from error


def check_place(who: str, url: str, *, allow_remote: bool) -> None:
    """That rows may be sent there.

    Raises:
        SetupError: they may not.
    """
    if not is_here(url) and not allow_remote:
        raise SetupError(
            f"{who}: {url} is not on this machine, and every row would be sent there. Who wants that says "
            "--allow-remote-engine."
        )


def loaded(
    model: Any,
    tokenizer: Any,
    config: SamplingConfig,
    sampling: Sampling,
    *,
    compute: str,
    allow_remote: bool,
    joins: bool,
) -> Loaded:
    """A model in memory with the engine that a step names, which has its weights.

    Raises:
        SetupError, EngineError: as `make_engine`.
    """
    engine = make_engine(config, model, tokenizer, compute=compute, allow_remote=allow_remote)
    bf16 = compute == "bfloat16"
    try:
        with computing(model, bf16=bf16):
            engine.sync(model, 0)
    except BaseException:
        engine.close()
        raise
    return Loaded(model, tokenizer, engine, sampling, bf16, joins)


def model_of(who: str, config: TeacherConfig) -> tuple[Any, Any]:
    """A model that is loaded to write, and its tokenizer.

    Raises:
        SetupError: it cannot be loaded.
    """
    assert config.name is not None
    described = ModelConfig(name=config.name, dtype=config.dtype, revision=config.revision)
    try:
        model, tokenizer = load(described, seed=0)
        if config.adapter is not None:
            model = with_adapter(model, Path(config.adapter), config.name)
    except SetupError as error:
        raise SetupError(f"{who}: {str(error).removeprefix('model.name: ')}") from error
    return model.requires_grad_(False).eval(), tokenizer


def _is_begun(problem: Problem) -> bool:
    prompt = problem.columns.get("prompt")
    return is_conversation(prompt) and prompt[-1].get("role") == "assistant"
