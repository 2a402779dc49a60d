"""All algorithms, by name. Each is one file: a config, the equation, the paper, and `build`, which returns the value."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from posttrain.algorithms.hybrids import chord, grpo_sft, hpt, luffy, prefix_rft, srft
from posttrain.algorithms.on_demonstrations import dft, iw_sft, psft, sft
from posttrain.algorithms.on_preferences import dpo
from posttrain.algorithms.on_rollouts import grpo, reinforce
from posttrain.errors import RecipeError
from posttrain.settings.base import Config, location

if TYPE_CHECKING:
    from posttrain.estimator.algorithm import Algorithm


AlgorithmConfig = Annotated[
    sft.SFT
    | dft.DFT
    | dft.ASFT
    | iw_sft.IWSFT
    | psft.PSFT
    | dpo.DPO
    | dpo.IPO
    | grpo.GRPO
    | grpo.DrGRPO
    | grpo.DAPO
    | grpo.GSPO
    | grpo.CISPO
    | reinforce.Reinforce
    | reinforce.RLOO
    | hpt.HPT
    | prefix_rft.PrefixRFT
    | luffy.LUFFY
    | srft.SRFT
    | chord.CHORD
    | grpo_sft.GRPOSFT,
    Field(discriminator="name"),
]

BUILDERS: dict[str, tuple[type[Config], Callable[[Any], Algorithm]]] = {
    "sft": (sft.SFT, sft.build),
    "dft": (dft.DFT, dft.build_dft),
    "asft": (dft.ASFT, dft.build_asft),
    "iw_sft": (iw_sft.IWSFT, iw_sft.build),
    "psft": (psft.PSFT, psft.build),
    "dpo": (dpo.DPO, dpo.build_dpo),
    "ipo": (dpo.IPO, dpo.build_ipo),
    "grpo": (grpo.GRPO, grpo.build_grpo),
    "dr_grpo": (grpo.DrGRPO, grpo.build_dr_grpo),
    "dapo": (grpo.DAPO, grpo.build_dapo),
    "gspo": (grpo.GSPO, grpo.build_gspo),
    "cispo": (grpo.CISPO, grpo.build_cispo),
    "reinforce": (reinforce.Reinforce, reinforce.build_reinforce),
    "rloo": (reinforce.RLOO, reinforce.build_rloo),
    "hpt": (hpt.HPT, hpt.build),
    "prefix_rft": (prefix_rft.PrefixRFT, prefix_rft.build),
    "luffy": (luffy.LUFFY, luffy.build),
    "srft": (srft.SRFT, srft.build),
    "chord": (chord.CHORD, chord.build),
    "grpo_sft": (grpo_sft.GRPOSFT, grpo_sft.build),
}


def build_algorithm(name: str, **options: Any) -> Algorithm:
    """The named algorithm as a frozen value; its repr shows its parts.

    Args:
        name: one of `BUILDERS`.
        options: fields of its config, for instance `clip_high=0.28`.

    Raises:
        RecipeError: an unknown name, an unknown option, or a value out of range (also a ValueError).
    """
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"Unknown algorithm {name!r}.{hint} There are: {', '.join(BUILDERS)}.")
    config, _ = BUILDERS[name]
    try:
        return from_config(TypeAdapter(config).validate_python({"name": name, **options}))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(location(e))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{name}: {faults}") from None


def example_values() -> list[Algorithm]:
    """Every algorithm with its published defaults; where an option has none, with an example of it."""
    counted = [name for name, (config, _) in BUILDERS.items() if "max_tokens" in config.model_fields]
    return [build_algorithm(name, **({"max_tokens": 1024} if name in counted else {})) for name in BUILDERS]


def from_config(config: Config) -> Algorithm:
    """The value that a validated config describes."""
    _, build = BUILDERS[getattr(config, "name")]  # noqa: B009  (every member of the union has it)
    return build(config)
