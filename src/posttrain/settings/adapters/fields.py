"""The fields of peft's configs, read from their source: importing peft would take seconds, and torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from posttrain.settings.adapters.kinds import AdapterKind


@cache
def _fields(module: str, config: str) -> frozenset[str]:
    found = find_spec("peft")
    assert found is not None and found.origin is not None  # it is a requirement
    tuners = Path(found.origin).parent / "tuners"
    files = (tuners / module / "config.py", tuners / "lycoris_utils.py")  # the second has a base of two kinds
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    classes = {node.name: node for tree in reversed(trees) for node in tree.body if isinstance(node, ast.ClassDef)}
    named, fields = [config], set[str]()
    while named:
        of_class = classes.get(named.pop())  # PeftConfig is none of these
        for node in of_class.body if of_class is not None else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                fields.add(node.target.id)
        named += [base.id for base in of_class.bases if isinstance(base, ast.Name)] if of_class is not None else []
    return frozenset(fields)


def fields_of(kind: AdapterKind) -> frozenset[str]:
    """Those of a kind's own, in the installed peft."""
    return _fields(kind.module, kind.config)


def field_of(kind: AdapterKind, key: str) -> str | None:
    """What peft calls a key of `model.adapter` in the config of this kind; None: it has no such thing."""
    own = fields_of(kind)
    names = {
        "r": ("r",),
        "alpha": ("lora_alpha", "alpha", f"{kind.module}_alpha"),
        "dropout": ("lora_dropout", f"{kind.module}_dropout", "module_dropout"),
        "target_modules": ("target_modules",),
        "init": ("init_lora_weights", f"init_{kind.module}_weights", "init_weights"),
    }
    return next((name for name in names[key] if name in own), None)
