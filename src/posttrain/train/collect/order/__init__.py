"""Which examples a step trains on: a pure function of (seed, step), so that a resumed run needs nothing else."""

from __future__ import annotations

from posttrain.train.collect.order.mixed import Mixed
from posttrain.train.collect.order.order import Order, examples_of_epochs, order_of
from posttrain.train.collect.order.passes import Rule

__all__ = ["Mixed", "Order", "Rule", "examples_of_epochs", "order_of"]
