"""transformers' TrainingArguments as they are handed over: what is not honoured is refused or told."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from posttrain.errors import SetupError
from posttrain.settings.trainer.arguments import IDLE, KEYS, PASSED, REFUSED
from posttrain.telling import tell
from posttrain.train.watch.names import LOWER_IS_BETTER

_TARGETED = ("galore", "apollo")


def check_arguments(args: Any) -> None:
    """Refuses what would not be honoured, and tells what changes nothing.

    Raises:
        SetupError: says what to do.
    """
    if not isinstance(args, TrainingArguments):
        raise SetupError(f"args must be transformers.TrainingArguments, not {type(args).__name__}.")
    if args.n_gpu > 1:
        raise SetupError(
            "Several devices in one process are not supported: choose one, by CUDA_VISIBLE_DEVICES=0, for instance, or start "
            "a process for each: posttrain run --processes N, or torchrun."
        )
    known = {*PASSED, *KEYS, *IDLE, *REFUSED}
    changed = _changed(args)
    if foreign := sorted(changed - known):
        raise SetupError(
            f"args: {', '.join(foreign)} of {type(args).__name__} would be read by nobody here: pass transformers' "
            "TrainingArguments. What TRL's configs say of a loss are options of the algorithm; of rollouts, sampling=."
        )
    if refused := [name for name in REFUSED if name in changed]:
        raise SetupError(" ".join(f"args: {name} is not taken: {REFUSED[name]}." for name in refused))
    for name in sorted(changed & IDLE.keys()):
        tell("idle-argument", f"args: {name} changes nothing: {IDLE[name]}.")
    optim = getattr(args.optim, "value", args.optim)
    if args.optim_target_modules and not any(word in str(args.optim) for word in _TARGETED):
        raise SetupError(f"args: optim_target_modules are read by {' and '.join(_TARGETED)} alone, and optim is {optim}.")
    if unread := _unread(args):
        raise SetupError(f"args: optim_args: {optim} does not read {', '.join(unread)}.")


def _changed(args: TrainingArguments) -> set[str]:
    """The fields that are not as transformers leaves them."""
    plain: Any = TrainingArguments(output_dir=str(args.output_dir), use_cpu=args.use_cpu, report_to=[])
    changed = set[str]()
    for field in dataclasses.fields(args):
        value, usual = getattr(args, field.name), getattr(plain, field.name, field.default)
        if field.init and value is not None and _plain(value) != _plain(usual):
            changed.add(field.name)
    return changed


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _unread(args: TrainingArguments) -> list[str]:
    """The names in optim_args that make no difference to the optimizer."""
    pairs = [pair for pair in (args.optim_args or "").replace(" ", "").split(",") if pair]
    if not pairs or any(word in str(args.optim) for word in _TARGETED):
        return []

    def options(kept: Sequence[str]) -> Any:
        other = copy.copy(args)
        other.optim_args = ",".join(kept)
        return Trainer.get_optimizer_cls_and_kwargs(other)[1]

    try:
        whole = options(pairs)
        return [pair.partition("=")[0] for pair in pairs if options([one for one in pairs if one is not pair]) == whole]
    except ImportError as error:
        raise SetupError(f"args: optim: {error}") from error
    except ValueError as error:
        raise SetupError(f"args: optim_args: {error}") from error


def for_the_parent(
    args: TrainingArguments, *, steps: int, epoch: int, fsdp2: bool, bf16: bool, metric: str | None = None
) -> TrainingArguments:
    """A copy with which the parent sees one batch for each optimizer step, and hides nothing.

    Args:
        args: as they are handed over.
        steps: of all epochs.
        epoch: steps of one; the parent knows none of them.
        fsdp2: of which the parent saves nothing; we do.
        bf16: products are computed in bfloat16.
        metric: what metric_for_best_model means.
    """
    args = copy.copy(args)
    args.save_only_model = fsdp2
    if bf16 and not args.bf16:
        args.bf16, args.mixed_precision = True, "bf16"
    args.gradient_accumulation_steps, args.save_total_limit = 1, None
    args.remove_unused_columns, args.ignore_data_skip, args.logging_nan_inf_filter = False, True, False
    if args.max_steps <= 0:
        args.max_steps = steps
    for kind in ("logging", "eval", "save"):
        if getattr(args, f"{kind}_strategy") == IntervalStrategy.EPOCH:
            setattr(args, f"{kind}_strategy", type(getattr(args, f"{kind}_strategy"))("steps"))
            setattr(args, f"{kind}_steps", epoch)
    name = (metric or "").removeprefix("eval/").partition("/")[2]
    if args.greater_is_better and LOWER_IS_BETTER.search(name):
        tell("greater-is-better", f"{metric} is better the lower it is: greater_is_better is taken for False.")
        args.greater_is_better = False
    return args


def check_best(args: TrainingArguments, names: Iterable[str], callbacks: Iterable[Any], *, open_ended: bool) -> str | None:
    """What metric_for_best_model means among the names of an evaluation; None where it is not asked for.

    Args:
        args: as they are handed over.
        names: of the metrics of an evaluation.
        callbacks: of the user.
        open_ended: an evaluation has metrics of the user's, too.

    Raises:
        SetupError: it can match nothing, or early stopping has nothing to look at.
    """
    names, wanted = list(names), args.metric_for_best_model
    if any(isinstance(one, EarlyStoppingCallback) for one in callbacks) and wanted is None:
        raise SetupError("EarlyStoppingCallback looks at metric_for_best_model: set it in args.")
    if wanted is None:
        return None
    if args.eval_strategy == IntervalStrategy.NO or not (names or open_ended):
        raise SetupError(
            f"metric_for_best_model: there is no evaluation that could have {wanted}: pass eval_dataset=, and set "
            "eval_strategy."
        )
    found = matching(wanted, names)
    if len(found) == 1 or (not found and open_ended):
        return found[0] if found else wanted
    raise SetupError(no_such_metric(wanted, found or names, several=bool(found)))


def matching(wanted: str, names: Iterable[str]) -> list[str]:
    """The metrics `eval/<set>/<name>` that a user of transformers may mean: with or without eval_, the set, and slashes."""
    flat = wanted.removeprefix("eval_").removeprefix("eval/").replace("/", "_")
    names = [name for name in names if name.startswith("eval/")]
    whole = [name for name in names if name.removeprefix("eval/").replace("/", "_") == flat]
    return whole or [name for name in names if name.removeprefix("eval/").partition("/")[2].replace("/", "_") == flat]


def no_such_metric(wanted: str, names: Iterable[str], *, several: bool) -> str:
    """The sentence."""
    listed = ", ".join(sorted(name.removeprefix("eval/") for name in names))
    how = "several" if several else "no"
    return f"metric_for_best_model: the evaluation has {how} {wanted}; {'they are' if several else 'it has'} {listed}."


def for_callbacks(metrics: dict[str, float], wanted: str | None) -> dict[str, float]:
    """The metrics, with the best model's under the name that transformers looks for.

    Raises:
        SetupError: there is no such metric.
    """
    if wanted is None:
        return metrics
    found = matching(wanted, metrics)
    if len(found) != 1:
        raise SetupError(no_such_metric(wanted, found or metrics, several=bool(found)))
    return {**metrics, f"eval_{wanted.removeprefix('eval_')}": metrics[found[0]]}
