"""Adapters (peft) on a model: made or gone on with, added to the weights, written to a folder."""

import logging

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # which names, on import, a kernel not used here
