"""Environments of verifiers' v0, as somebody may have installed them: played by test_others_environments.py."""

from __future__ import annotations

from typing import Any

import verifiers as vf  # type: ignore[import-not-found]
from datasets import Dataset


def questions(number: int) -> Any:
    return Dataset.from_list([{"question": f"{i}+{i}", "answer": str(2 * i)} for i in range(number)])


def last(completion: Any) -> str:
    return completion[-1].content or ""


def right(completion: Any, answer: str) -> float:
    if "boom" in last(completion):
        raise RuntimeError("no grade")
    return float(last(completion) == answer)


async def short(completion: Any, **_: Any) -> float:
    return 0.5 if len(last(completion)) < 3 else 0.0


class Counting(vf.MultiTurnEnv):
    """Says how often it was asked; a last word of its own ends it."""

    async def setup_state(self, state: Any) -> Any:
        state["asked"] = 0
        return state

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        state["asked"] += 1
        said = messages[-1].content
        if said == "raise":
            raise RuntimeError("broken")
        answer = [{"role": "user", "content": f"{state['asked']}: {said}"}]
        if said == "bye":
            state["final_env_response"] = answer
        return answer

    @vf.stop
    async def is_told_to(self, state: Any) -> bool:
        return state["trajectory"][-1]["completion"][-1].content == "stop" if state["trajectory"] else False


class OwnPrompts(Counting):
    async def get_prompt_messages(self, state: Any) -> Any:
        return state["prompt"]


class Compared(Counting):
    pass


def add(a: int, b: int = 1) -> int:
    """Adds two numbers.

    Args:
        a: one of them.
        b: the other.
    """
    return a + b


def best(completions: Any) -> list[float]:
    return [0.0 for _ in completions]


def load_environment(kind: str, rows: int = 8, held_out: int = 4, system: str | None = "Be brief.") -> Any:
    rubric = vf.Rubric(funcs=[right, short], weights=[1.0, 0.2])
    data: dict[str, Any] = {"dataset": questions(rows), "rubric": rubric, "system_prompt": system}
    if held_out:
        data["eval_dataset"] = questions(held_out)
    if kind == "single":
        return vf.SingleTurnEnv(**data)
    if kind == "tools":
        return vf.ToolEnv(tools=[add], max_turns=4, **data)
    if kind == "compared":
        return Counting(**{**data, "rubric": vf.Rubric(funcs=[best])})
    if kind == "group":
        return vf.EnvGroup([vf.SingleTurnEnv(**data)], env_names=["one"])
    return {"own prompts": OwnPrompts, "counting": Counting}[kind](max_turns=3, **data)
