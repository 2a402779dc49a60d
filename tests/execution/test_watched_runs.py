"""Runs by the command that say what is wrong with them: on the screen once, in warnings.jsonl, in the summary; and that end
when a metric says so.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from posttrain.train.loop import Loop
from recipes import Command, recipe

ROLLOUTS = {"questions_per_step": 2, "n": 3, "max_tokens": 6}
CONSTANT = {"rows_per_step": 4, "lr_scheduler_type": "constant", "save_total_limit": None, "learning_rate": 0.01}
HELD_OUT = {"task": "chain", "split": "held_out", "rows": 8}


def online(**changes: Any) -> str:
    return recipe(
        **{"algorithm": {"name": "grpo", "kl_coef": 0.0}, "rollout": ROLLOUTS, "training": {"max_steps": 8}, **changes}
    )


def sft(**training: Any) -> str:
    data = {"train": {"task": "chain", "rows": 64}, "eval": {"test": HELD_OUT}}
    return recipe(data=data, training={"max_steps": 12, **CONSTANT, **training}, eval={"every": 2})


def lines(name: str, folder: str = "out") -> list[dict[str, Any]]:
    path = Path(folder, f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def without_times(name: str, folder: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines(name, folder)]


@pytest.mark.parametrize(
    ("algorithm", "rollout", "told"),
    [
        ({"name": "sdft"}, {}, False),
        ({"name": "dpo"}, {"pairs": {"rule": "demonstration"}}, False),
        ({"name": "dpo"}, {"pairs": {"rule": "best_worst"}}, True),
    ],
)
def test_rewards_are_not_to_vary_where_the_teacher_or_the_data_say_what_is_better(
    algorithm: dict[str, Any], rollout: dict[str, Any], told: bool, posttrain: Command
) -> None:
    sampling = {"questions_per_step": 2, "n": 2, "max_tokens": 4, **rollout}
    training = {"max_steps": 1, "rows_per_step": 4}
    data = {"train": {"task": "chain", "rows": 8}, "on_wrong_demonstration": "keep"}
    rewards = [{"name": "exact_match"}]
    wanted = recipe(algorithm=algorithm, data=data, rollout=sampling, training=training, rewards=rewards)
    code, out, err = posttrain("run", wanted)
    assert (code, "Rewards never vary" in err) == (0, told), out + err
    assert lines("metrics")[0]["reward/spread"] == 0
    assert told or "No row of step 1 carries" not in err


def test_rewards_that_never_vary(posttrain: Command) -> None:
    code, out, err = posttrain("run", online(rewards=[{"name": "exact_match"}]))
    assert code == 0 and err.count("warning: Rewards never vary: every answer of steps 1 to 5 has 0") == 1
    [warned] = [line for line in lines("warnings") if line["rule"] == "rewards-never-vary"]
    assert warned["step"] == 5 and "Rewards never vary" in out.partition("Warnings")[2]
    code, out, err = posttrain("run", online(rewards=[{"name": "exact_match"}]))
    assert (code, err) == (0, "") and "is finished" in out and "Rewards never vary" in out


def test_rewards_that_never_vary_in_a_run_of_two_steps(posttrain: Command) -> None:
    code, _, err = posttrain("run", online(rewards=[{"name": "exact_match"}], training={"max_steps": 2}))
    assert code == 0 and "every answer of steps 1 to 2 has 0" in err


def test_answers_that_are_all_cut_off(posttrain: Command) -> None:
    changes = {"rollout": {**ROLLOUTS, "max_tokens": 2}}
    code, _, err = posttrain("run", online(**changes))
    assert code == 0 and "of the answers of steps 1 to 5 were cut off, at 2 tokens" in err, err


def test_a_run_that_learns_says_nothing(posttrain: Command) -> None:
    code, out, err = posttrain("run", sft())
    assert (code, err) == (0, "") and "Warnings" not in out and not lines("warnings")
    losses = [line["loss"] for line in lines("metrics")]
    assert losses[-1] < losses[0]


def test_a_run_that_goes_on_is_watched_as_one_that_was_never_broken_off(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole() -> str:
        return online(rewards=[{"name": "exact_match"}], training={"max_steps": 9, "save_every": 3})

    assert posttrain("run", whole(), "--output-dir", "whole")[0] == 0
    honest = Loop._backward

    def fails(after: int) -> Any:
        def backward(self: Loop, *arguments: Any) -> Any:
            if self.state.global_step == after:
                raise RuntimeError("the machine stops")
            return honest(self, *arguments)

        return backward

    for after in (4, 7):  # before it is told, and after
        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_backward", fails(after))
            assert posttrain("run", whole())[0] == 1
    code, out, err = posttrain("run", whole())
    assert (code, err) == (0, "") and "Rewards never vary" in out
    assert lines("warnings") == lines("warnings", "whole") and len(lines("warnings")) == 1


@pytest.mark.parametrize(
    ("stop", "step"),
    [
        ({"metric": "loss", "below": 100.0}, 1),
        ({"metric": "loss", "below": 100.0, "patience": 3}, 3),
        ({"metric": "eval/test/nll", "below": 100.0, "patience": 2}, 2),
        ({"metric": "loss", "above": 100.0}, None),
    ],
)
def test_stop_when_ends_the_run_with_its_model(posttrain: Command, stop: dict[str, Any], step: int | None) -> None:
    code, _, err = posttrain("run", sft(stop_when=stop))
    assert code == 0 and lines("metrics")[-1]["step"] == (step or 12) and Path("out/final/model.safetensors").is_file()
    assert (f"warning: Ended at step {step} of 12: {stop['metric']} below 100 (" in err) is (step is not None)
    assert lines("eval")[-1]["step"] == (step or 12)
    assert Path(f"out/checkpoint-{step or 12}").is_dir()
    assert "is finished" in posttrain("run", sft(stop_when=stop))[1]


def test_a_run_that_was_to_end_and_is_broken_off_before_its_model_is_saved(posttrain: Command) -> None:
    path = sft(stop_when={"metric": "loss", "below": 100.0, "patience": 3})
    assert posttrain("run", path, "--output-dir", "whole")[0] == 0
    shutil.copytree("whole", "out")
    shutil.rmtree("out/final")
    code, _, err = posttrain("run", path)
    assert (code, err) == (0, "")
    assert without_times("metrics", "out") == without_times("metrics", "whole")
    assert lines("warnings") == lines("warnings", "whole")
    assert Path("out/final/model.safetensors").read_bytes() == Path("whole/final/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("stop", "says"),
    [
        ({"metric": "reward/mean", "above": 0.9}, "training.stop_when.metric: reward/mean is not measured in this run"),
        ({"metric": "los", "above": 0.9}, "there are loss"),
        ({"metric": "eval/test/nonsense", "above": 0.9}, "eval/test/nonsense is not measured in this run"),
        ({"metric": "eval/tset/nll", "above": 0.9}, "is not <set>/<name> of a set in data.eval (test)"),
        ({"metric": "eval/test/pass@1", "above": 0.9}, "needs eval.samples"),
        ({"metric": "loss"}, "training.stop_when: give either above or below"),
        ({"metric": "loss", "above": 1, "below": 2}, "training.stop_when: give either above or below"),
        ({"metric": "loss", "above": float("nan")}, "training.stop_when.above: "),
    ],
)
def test_a_metric_that_is_not_measured_is_refused_and_the_mended_recipe_begins(
    posttrain: Command, stop: dict[str, Any], says: str
) -> None:
    code, _, err = posttrain("run", sft(stop_when=stop))
    assert code == 2 and says in err and len(lines("metrics")) <= 1
    if says == "there are loss":
        assert posttrain("run", sft(stop_when={**stop, "metric": "loss"}))[0] == 0


def test_the_last_step_is_evaluated_once(posttrain: Command) -> None:
    """transformers evaluates after the last step where steps between evaluations are set, whatever their number."""
    data = {"train": {"task": "chain", "rows": 8}, "eval": {"test": {"task": "chain", "split": "held_out", "rows": 2}}}
    training = {"max_steps": 4, "rows_per_step": 4, "save_every": 0}
    assert posttrain("run", recipe(data=data, training=training, eval={"every": 3, "samples": 1}))[0] == 0
    assert [json.loads(line)["step"] for line in Path("out/eval.jsonl").read_text().splitlines()] == [0, 3, 4]
