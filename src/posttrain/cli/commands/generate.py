"""`posttrain generate`: answers of a model, as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from posttrain.cli.model_options import At, Dtype, MaxTokens, Seed, Temperature, TopK, TopP, What, check_dtype, chosen_model
from posttrain.cli.options import begun
from posttrain.cli.screen import err, out
from posttrain.errors import RecipeError


def generate(
    model: What,
    prompt: Annotated[list[str], typer.Option(help="A text to be answered; may be repeated.")] = [],  # noqa: B006
    data: Annotated[Path | None, typer.Option(help="A file of rows with a prompt, or messages, each.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="The first of the file only.")] = None,
    output: Annotated[Path | None, typer.Option(help="A file for the lines; stdout by default.")] = None,
    at: At = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Answers to each.")] = 1,
    engine: Annotated[str, typer.Option(help="hf: transformers. vllm, where it is installed.")] = "hf",
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    dtype: Dtype = "float32",
) -> None:
    """Answer prompts with a run's model, or any, asked as the run asked it in training."""
    if bool(prompt) == (data is not None):
        raise RecipeError("generate: give either --prompt or --data.")
    if engine not in ("hf", "vllm"):
        raise RecipeError(f"--engine {engine}: hf or vllm is expected.")
    check_dtype(dtype)
    chosen = chosen_model(model, at)
    err.print(f"{begun()}: {chosen.name}: loading torch and transformers, which takes a while at first …", markup=False)
    from posttrain.cli.checked import checked
    from posttrain.data.sources import Record, read
    from posttrain.execution.use.asking import Asked
    from posttrain.rollout.make import sampling_of
    from posttrain.settings.data import PathSource
    from posttrain.settings.evaluation import EvalConfig
    from posttrain.train.watch.records import JsonLines

    drawn = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    sampling = sampling_of(checked(EvalConfig, drawn), seed)
    asked = Asked(chosen, dtype)
    records = [Record(f"--prompt {i}", {"prompt": text}) for i, text in enumerate(prompt, 1)]
    if data is not None:
        records = list(read(checked(PathSource, {"path": str(data), "limit": rows})))
    problems, report = asked.problems(records, max_tokens)
    for counter, where, reason in report.notes:
        err.print(f"left out ({counter}): {where}: {reason}", markup=False)
    sampler = asked.engine(engine)
    target = None if output is None else JsonLines(output)
    if target is not None:
        target.rewrite([])
    try:
        for line in asked.answers(problems, sampler, sampling, n):
            if target is None:
                _print(line)
            else:
                target.append(line)
    finally:
        sampler.close()
    if output is not None:
        err.print(f"{len(problems) * n} answers: {output.resolve()}", markup=False)


def _print(line: Mapping[str, Any]) -> None:
    """A line for a program that reads them; on a terminal, nothing in it that the terminal would obey."""
    text = json.dumps(line, ensure_ascii=out.is_terminal)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
