"""All environments: one file (its config, and what it does) and one line here for each."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from posttrain.environments.kinds.calculator import CalculatorConfig
from posttrain.environments.kinds.class_ import ClassEnvironment
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.environments.kinds.grid import GridConfig
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.environments.kinds.openenv import OpenEnvConfig
from posttrain.environments.kinds.python import PythonConfig
from posttrain.environments.kinds.sql import SqlConfig
from posttrain.environments.kinds.twenty import TwentyConfig
from posttrain.environments.kinds.user import UserConfig
from posttrain.environments.kinds.verifiers import VerifiersConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.doors.door import installed
from posttrain.settings.doors.kinds import Kind

ENVIRONMENTS: tuple[type[EnvironmentConfig], ...] = (
    GuessConfig,
    TwentyConfig,
    CalculatorConfig,
    GridConfig,
    SqlConfig,
    PythonConfig,
    UserConfig,
    EchoConfig,
    ClassEnvironment,
    OpenEnvConfig,
    VerifiersConfig,
)


def _installed_environment(point: EntryPoint, brought: Any) -> type[EnvironmentConfig]:
    """The config of a class that an installed package brings; its options stand under `options`."""
    if not isinstance(brought, type):
        raise ValueError(f"{point.value} is neither a config class with build, nor a class with reset, step and close")
    return installed(ClassEnvironment, point.name, point.value)


KIND = Kind(
    "environment", group="posttrain.environments", base=EnvironmentConfig, members=ENVIRONMENTS, wrap=_installed_environment
)

if TYPE_CHECKING:
    AnyEnvironment = EnvironmentConfig
else:
    AnyEnvironment = KIND.field
