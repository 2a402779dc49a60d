"""`posttrain chat`: a conversation with a model, in the terminal."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from posttrain.cli.model_options import At, Dtype, MaxTokens, Seed, Temperature, TopK, TopP, What, check_dtype, chosen_model
from posttrain.cli.options import begun
from posttrain.cli.screen import err, out, say

HELP = "/new begins a new conversation, /undo takes the last turn back, /quit ends it; Ctrl-C stops an answer."


def chat(
    model: What,
    at: At = None,
    system: Annotated[str | None, typer.Option(help="A system message, in place of the run's.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    dtype: Dtype = "float32",
) -> None:
    """Talk to a run's model, or any, through its chat template; answers come word by word."""
    check_dtype(dtype)
    chosen = chosen_model(model, at)
    say(f"{begun()}: {chosen.name}: loading torch and transformers, which takes a while at first …")
    from posttrain.cli.checked import checked
    from posttrain.errors import DataError
    from posttrain.execution.use.asking import Asked
    from posttrain.rollout.make import sampling_of
    from posttrain.settings.evaluation import EvalConfig

    drawn = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    sampling = sampling_of(checked(EvalConfig, drawn), seed)
    asked = Asked(chosen, dtype)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # stops an answer, not the program
    begin = [] if system is None else [{"role": "system", "content": system}]
    turns = list(begin)
    say(HELP)
    try:
        while (said := _read()) is not None and said != "/quit":
            if said == "/new":
                turns = list(begin)
                say("A new conversation.")
            elif said == "/undo":
                turns = turns[:-2] if len(turns) > len(begin) else turns
                say(f"{(len(turns) - len(begin)) // 2} turns are left.")
            elif said.startswith("/"):
                say(f"{said.split()[0]} is not known. {HELP}")
            elif said.strip():
                try:
                    answer, finish = asked.reply([*turns, {"role": "user", "content": said}], sampling, _tell)
                except KeyboardInterrupt:
                    say("\n(stopped; the turn is taken back)")
                    continue
                except DataError as error:
                    err.print(str(error), markup=False)
                    continue
                say("" if finish == "stop" else f"\n(cut off at --max-tokens {sampling.max_tokens})")
                turns += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    finally:
        signal.signal(signal.SIGINT, before)


def _read() -> str | None:
    """A line of the person, or None at the end."""
    if sys.stdin.isatty():
        out.print("you: ", style="bold", end="", markup=False)
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        return None
    return line.rstrip("\n") if line else None


def _tell(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True, end="")
