"""A fresh adapter on a model, and what it makes of it at the start."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from posttrain.errors import SetupError
from posttrain.model.adapters.rounded import as_any_other
from posttrain.model.adapters.writing import keep_beginning
from posttrain.model.proofs.rows import ProbeRows, agree, largest
from posttrain.settings.adapters.adapter import Adapter
from posttrain.settings.adapters.kinds import AdapterKind
from posttrain.telling import tell


def with_fresh_adapter(model: Any, adapter: Adapter, *, seed: int, label: str) -> Any:
    """The model with an adapter that is a function of the seed.

    Raises:
        SetupError: it does not fit the model, or what its init took out of the base is not what it begins with.
    """
    from peft import get_peft_model

    rows = None if adapter.starts_exactly else ProbeRows.of((), model.get_input_embeddings().num_embeddings)
    before = None if rows is None else rows.logp(model)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.manual_seed(seed)
        try:
            made = get_peft_model(model, _config(adapter.known)(**adapter.for_peft()))
        except Exception as error:  # whatever peft finds wrong with its options
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SetupError(f"{label}: the adapter does not fit: {reason}") from error
    for one in dict.fromkeys(str(warning.message) for warning in warned if issubclass(warning.category, UserWarning)):
        if "tie_word_embeddings" not in one:  # which `untie` sees to
            tell("adapter-made", f"{label}, adapter {adapter.label}: peft says: {one}")
    if adapter.changes_base:
        keep_beginning(made)
    if rows is not None and before is not None:
        here = rows.logp(made)
        if not agree(before, here, model):
            _tell_where(adapter, largest(before, here), label)
    as_any_other(made)
    return made


def _config(kind: AdapterKind) -> Any:
    import peft.tuners as tuners

    return getattr(getattr(tuners, kind.module), kind.config)


def _tell_where(adapter: Adapter, nats: float, label: str) -> None:
    if adapter.changes_base:
        raise SetupError(
            f"{label}: with init: {adapter.init} the model with its adapter is not the model without (a log-prob differs by "
            f"{nats:.3g} nats). Take another init, or dtype: float32."
        )
    tell(
        "adapter-start",
        f"An adapter of kind {adapter.label} does not begin at 0: a log-prob of the policy at the start differs by up to "
        f"{nats:.3g} nats from that of {label}.",
    )
