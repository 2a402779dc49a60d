"""The parts of estimators by the names that they had first, for code that imports them so."""

import sys

from posttrain.estimator.parts import advantage, average, correction, denominator, mask, plan, select
from posttrain.estimator.parts import coefficient as schedule
from posttrain.estimator.parts import metric as objective
from posttrain.estimator.parts.credit import baseline, gate, prefix, verdict

_MODULES = {
    "advantage": advantage,
    "average": average,
    "baseline": baseline,
    "correction": correction,
    "denominator": denominator,
    "gate": gate,
    "mask": mask,
    "objective": objective,
    "plan": plan,
    "prefix": prefix,
    "schedule": schedule,
    "select": select,
    "verdict": verdict,
}
sys.modules.update({f"{__name__}.{name}": module for name, module in _MODULES.items()})
