"""Packages that a recipe asks for and that this one does not bring: whether they are there, before torch is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from posttrain.environments.options import EnvironmentConfig
from posttrain.errors import SetupError
from posttrain.recipe.recipe import Recipe
from posttrain.settings.adapters import quantization
from posttrain.settings.data import GymSource
from posttrain.settings.trainer.optimizers import PACKAGE_OF

TRACKERS = {"wandb": "wandb", "tensorboard": "tensorboard", "trackio": "trackio", "mlflow": "mlflow"}
"""For each tracker of training.report_to: the package that it is imported from, and by the same name installed."""


def check_packages(recipe: Recipe) -> None:
    """Whether what the recipe names can be imported here.

    Raises:
        SetupError: with a line for each package that is missing, and how to install it.
    """
    _check(dict.fromkeys(need for one in recipe.stages or [recipe] for need in _needs(one)))


def check_of_environment(played: EnvironmentConfig) -> None:
    """The same of an environment alone.

    Raises:
        SetupError: its package is missing.
    """
    _check(_need(played))


def _check(asked: Iterable[tuple[str, str, str]]) -> None:
    lacking = [
        f"{key} needs the package {name}: pip install {install}" for key, name, install in asked if not _is_there(name)
    ]
    if lacking:
        raise SetupError("\n".join(lacking))


def _needs(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """The key and its value, the package's name in Python, and what is to be installed."""
    for tracker in recipe.training.report_to:
        yield f"training.report_to: {tracker}", TRACKERS[tracker], TRACKERS[tracker]
    if (rounded := recipe.model.quantization) is not None:
        yield f"model.quantization: {rounded.label}", quantization.PACKAGE, quantization.INSTALL
    for one in recipe.data.transforms:
        if one.package is not None:
            yield f"data.transforms: {one.label}", one.package, f"'posttrain[{one.extra}]'"
    optimizer = recipe.training.extra.get("optim")
    if optimizer in PACKAGE_OF:
        yield f"training.extra.optim: {optimizer}", *PACKAGE_OF[optimizer]
    named = recipe.training.optimizer
    if named is not None and named.package is not None:
        yield f"training.optimizer: {named.name}", *named.package
    if recipe.distributed.by_deepspeed and recipe.distributed.processes > 1:
        yield f"distributed.mode: {recipe.distributed.mode}", "deepspeed", "'posttrain[deepspeed]' (or take fsdp2)"
    if recipe.environment is not None:
        yield from _need(recipe.environment)
    beside = recipe.data.demonstrations, *recipe.training.kept.values()
    for source in (*recipe.data.sources.values(), *beside, *recipe.data.eval.values()):
        if isinstance(source, GymSource):
            yield f"gym: {source.gym}", "reasoning_gym", "'posttrain[reasoning-gym]'"
    for sampling in (recipe.rollout, *recipe.data.steps):
        if sampling is not None and sampling.engine == "vllm" and not sampling.vllm.addresses:
            yield "engine: vllm", "vllm", "'posttrain[vllm]' (on a CPU: make setup-vllm)"


def _need(played: EnvironmentConfig) -> Iterator[tuple[str, str, str]]:
    if played.package is not None:
        yield f"environment: {played.label}", *played.package


def _is_there(package: str) -> bool:
    """A folder of that name without code is none: some trackers leave one where they write."""
    found = find_spec(package)
    return found is not None and found.origin is not None
