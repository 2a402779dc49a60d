"""Public names: they are what they are whatever has been imported, and the old places of some still lead to them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAME = """
import importlib, pkgutil
import posttrain
before = {name: getattr(posttrain, name) for name in posttrain.__all__}
modules = [one.name for one in pkgutil.walk_packages(posttrain.__path__, "posttrain.") if not one.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
after = {name: getattr(posttrain, name) for name in posttrain.__all__}
assert [name for name in before if before[name] is not after[name]] == []
assert callable(posttrain.run) and len(modules) > 150, len(modules)
from posttrain.recipe import load_recipe
assert load_recipe is posttrain.load_recipe
import posttrain.estimator, posttrain.parts.average
from posttrain.parts import advantage, baseline, objective, schedule
from posttrain.parts.average import token
from posttrain.estimator.parts import average
assert token is average.token and posttrain.parts.average is average
both = [name for name in posttrain.estimator.__all__ if name in before]
assert all(getattr(posttrain.estimator, name) is getattr(posttrain, name) for name in both) and "Term" in both
"""


@pytest.mark.system
def test_every_public_name_is_the_same_object_before_and_after_all_submodules_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SAME], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
