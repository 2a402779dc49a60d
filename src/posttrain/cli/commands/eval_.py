"""`posttrain eval`: a model, or a run's final model, on a set of problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import AllowUnjailed, begun
from posttrain.cli.screen import out, say


def eval_(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, a model's, or a hub name.")],
    data: Annotated[str, typer.Option(help="A file, hub:NAME:CONFIG:SPLIT, task:NAME:SPLIT, gym:NAME, or a set of the run.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers for each problem.")] = 4,
    k: Annotated[list[int], typer.Option("--k", min=1, help="pass@k besides pass@1; may be repeated.")] = [],  # noqa: B006
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_p: Annotated[float, typer.Option()] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Of the most probable tokens; 0: of all.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    stop: Annotated[list[str], typer.Option(help="A text that ends an answer; may be repeated.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0)] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="The first problems only.")] = None,
    columns: Annotated[list[str], typer.Option(metavar="OURS=THEIRS", help="Names of the data's columns.")] = [],  # noqa: B006
    grader: Annotated[str | None, typer.Option(help="math_verify or exact_match, in place of the run's.")] = None,
    reads_cut_off: Annotated[bool, typer.Option("--reads-cut-off", help="Answers that --max-tokens cut off, too.")] = False,
    prompt_template: Annotated[str | None, typer.Option(help="In place of the run's; {prompt} by default.")] = None,
    chat_template: Annotated[bool | None, typer.Option(help="In place of the run's; on by default.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    output: Annotated[Path | None, typer.Option(help="eval.jsonl of the run, or here, by default.")] = None,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Sample answers, grade them, and give pass@1, pass@k, majority@k and length with 95 % intervals."""
    say(f"{begun()}: {model} on {data}: loading torch and transformers, which takes a while at first …")
    from posttrain.cli.evaluate import Asked, answer

    templates = {"prompt_template": prompt_template, "chat_template": chat_template}
    asked = Asked(
        model=model,
        data=data,
        settings={
            "samples": samples,
            "k": k,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "max_tokens": max_tokens,
            "stop": stop,
            "seed": seed,
            "limit": limit,
        },
        columns=columns,
        grader=grader,
        reads_cut_off=reads_cut_off,
        templates={name: value for name, value in templates.items() if value is not None},
        dtype=dtype,
        output=output,
        unjailed=allow_unjailed_code,
    )
    out.print(answer(asked))
