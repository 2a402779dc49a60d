"""Which learning rate and weight decay each parameter is trained with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from posttrain.settings.training import LayerRates, MatchedRates, ParameterRule


class Rates(NamedTuple):
    """Of one parameter: its learning rate at the top of the schedule; its weight decay, or none of its own."""

    lr: float
    weight_decay: float | None


def rates_of(model: Any, rules: Sequence[ParameterRule], learning_rate: float) -> dict[str, Rates]:
    """Those of every parameter that is trained, by name: the rules in their order, each over the ones before.

    Raises:
        ValueError: a rule is of nothing that is trained.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = dict.fromkeys(names, Rates(learning_rate, None))
    for number, rule in enumerate(rules):
        factors = _by_layer(model, names, rule) if isinstance(rule, LayerRates) else _matched(names, rule)
        if not factors:
            what = "has no numbered layers" if isinstance(rule, LayerRates) else f"has no name with {rule.match!r} in it"
            raise ValueError(f"parameters.{number}: what is trained {what}; its names are as {', '.join(names[:3])}")
        for name, factor in factors.items():
            found[name] = _over(found[name], rule, factor)
    return found


def grouped(model: Any, rates: Mapping[str, Rates], decayed: Iterable[str], decay: float) -> list[dict[str, Any]]:
    """Param groups, each of one learning rate and weight decay.

    Those of the most frequent learning rate are first, and theirs is the one that is recorded; among these, weights come
    before what has no decay, as transformers has them.

    Args:
        model: whose parameters they are.
        rates: of each that is trained.
        decayed: names of those that have `decay` where nothing else is said; others have none.
        decay: training.weight_decay.
    """
    kinds: dict[tuple[float, bool, float], list[str]] = {}
    decayed, parameters = set(decayed), dict(model.named_parameters())
    for name, (lr, own) in rates.items():
        kind = lr, name not in decayed, (decay if name in decayed else 0.0) if own is None else own
        kinds.setdefault(kind, []).append(name)
    often = {lr: sum(rate.lr == lr for rate in rates.values()) for lr in {rate.lr for rate in rates.values()}}
    return [
        {"params": [parameters[name] for name in kinds[kind]], "lr": kind[0], "weight_decay": kind[2]}
        for kind in sorted(kinds, key=lambda kind: (-often[kind[0]], kind[0], kind[1], kind[2]))
    ]


def told(rates: Mapping[str, Rates]) -> list[str]:
    """A line for each learning rate and weight decay: how many tensors have it, and which."""
    kinds: dict[Rates, list[str]] = {}
    for name, rate in rates.items():
        kinds.setdefault(rate, []).append(name)
    return [
        f"learning rate {rate.lr:.4g}{'' if rate.weight_decay is None else f', weight decay {rate.weight_decay:g}'}: "
        f"{len(names):,} tensors, {', '.join(names[:2])}{', …' * (len(names) > 2)}"
        for rate, names in kinds.items()
    ]


def _over(before: Rates, rule: ParameterRule, factor: float) -> Rates:
    if isinstance(rule, LayerRates):
        return before._replace(lr=before.lr * factor)
    lr = rule.lr if rule.lr is not None else before.lr * factor
    return Rates(lr, before.weight_decay if rule.weight_decay is None else rule.weight_decay)


def _matched(names: Sequence[str], rule: MatchedRates) -> dict[str, float]:
    factor = 1.0 if rule.rate is None else rule.rate
    return {name: factor for name in names if re.search(rule.match, name)}


def _by_layer(model: Any, names: Sequence[str], rule: LayerRates) -> dict[str, float]:
    """rate^(layers - 1 - its number) for what is in a numbered layer, rate^layers for embeddings."""
    numbers = {name: int(found[1]) for name, _ in model.named_parameters() if (found := re.search(r"\.(\d+)\.", name))}
    if not numbers:
        return {}
    layers, embeddings = max(numbers.values()) + 1, _inside(model, model.get_input_embeddings())
    depths = {name: layers if name in embeddings else layers - 1 - numbers.get(name, layers - 1) for name in names}
    return {name: rule.rate**depth for name, depth in depths.items()}


def _inside(model: nn.Module, module: nn.Module) -> set[str]:
    own = {id(parameter) for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}
