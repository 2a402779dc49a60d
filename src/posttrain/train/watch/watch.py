"""A run, watched: what its metrics say is told once, and a metric may end it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from posttrain.errors import RecipeError
from posttrain.settings.training import StopWhen
from posttrain.telling import tell
from posttrain.train.watch.records import Listener, RunFiles
from posttrain.train.watch.rules import COMPARED, CUT_OFF, Rule, all_rules


class Watch(Listener):
    """Shows each step to the rules and tells what they say, each once in a run; and sees whether it is to end.

    It keeps nothing in checkpoints: when a run goes on, it is shown what metrics.jsonl and eval.jsonl have until there.

    Args:
        files: of the run.
        stop_when: the end.
        compares: something is learnt only where rewards differ.
    """

    def __init__(self, files: RunFiles, stop_when: StopWhen | None = None, *, compares: bool = True) -> None:
        self._files, self._stop_when, self._compares = files, stop_when, compares
        self._rules: list[Rule] = []
        self._silent, self._steps, self._met = False, 0, 0
        self.is_over = False
        """Whether `stop_when` is met."""

    def on_start(self, step: int, steps: int) -> None:
        """Begins anew, and sees again what was seen before this step."""
        self._rules, self._steps, self._met, self.is_over = all_rules(), steps, 0, False
        if not step:
            return
        self._silent = True
        for line in self._files.lines_until(step):
            if "learning_rate" in line:
                self.on_step(int(line["step"]), line)
            else:
                self.on_evaluation(int(line["step"]), line)
        self._silent = False

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Listener`."""
        seen = {name: value for name, value in metrics.items() if self._compares or name not in COMPARED}
        for rule in list(self._rules):
            sentence = rule.look(step, seen, last=step == self._steps)
            if sentence is not None:
                self._rules.remove(rule)
                self._tell(rule.name, sentence, step)
        if self._stop_when is not None and not self._stop_when.metric.startswith("eval/"):
            self._measure(step, metrics)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Listener`. After training, a model whose answers do not end is told."""
        for name, share in metrics.items():
            kind, _, quantity = name.rpartition("/")
            if step and quantity == "cut_off" and share >= CUT_OFF and metrics.get(f"{kind}/length", 0) > 1:
                self._tell(
                    "no-end",
                    f"{share:.0%} of the answers to {kind.removeprefix('eval/')} were cut off at eval.max_tokens, after step "
                    f"{step}: the model writes no end token that is known, or max_tokens is too low.",
                    step,
                )
        if self._stop_when is not None and self._stop_when.metric.startswith("eval/"):
            self._measure(step, metrics)

    def _measure(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises `RecipeError` where the first measurement has no metric of this name."""
        stop = self._stop_when
        assert stop is not None
        value = metrics.get(stop.metric)
        if value is None:
            if step <= 1 and not metrics.get("train/left_out"):
                near = difflib.get_close_matches(stop.metric, metrics, n=3) or [name for name in metrics if "/" in name][:6]
                raise RecipeError(
                    f"training.stop_when.metric: {stop.metric} is not measured in this run; there are {', '.join(near)}, … "
                    "Mend the recipe, and the same command begins again."
                )
            return
        self._met = self._met + 1 if stop.is_met(value) else 0
        if self._met >= stop.patience and not self.is_over:
            self.is_over = True
            self._tell("stop-when", f"Ended at step {step} of {self._steps}: {stop} ({value:.4g}).", step)

    def _tell(self, rule: str, sentence: str, step: int) -> None:
        if not self._silent:
            tell(rule, sentence, step)
