"""All that the rows of a source depend on, so that those of another recipe, tokenizer or file are not taken for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.data.encoding.teacher import Asked
from posttrain.data.encoding.template import Template
from posttrain.data.sources.state import state_of
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.mixture import Part, parts
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.proofs.tokens import tokenizer_identity
from posttrain.recipe import Recipe
from posttrain.recipe.code import fingerprints
from posttrain.settings.data import DataConfig, Encoding
from posttrain.settings.data.mixture import sources_in
from posttrain.train.given.rows import read_as

HOME = Path(__file__).parents[3]
"""Of the package."""
ENCODING = ("data", "estimator", "settings")
"""Folders of the package whose code makes rows of records."""


def depends_on(
    part: Part, recipe: Recipe, algorithm: Algorithm, model: Any, tokenizer: Any, teacher: Asked | None
) -> dict[str, Any]:
    """As JSON has it.

    Raises:
        DataError: a source cannot be found.
        RecipeError: code of the recipe's cannot be read.
    """
    data, encoding = recipe.data, recipe.data.model_dump(mode="json", include={*Encoding.model_fields})
    if not (tokenizer.chat_template and data.chat_template and Template(tokenizer, data.chat_template_kwargs).writes_date):
        encoding.pop("date")
    of_all = bool(data.transforms) or data.eval_share is not None
    drawn = bool(data.transforms) or data.replay is not None
    return {
        "source": {"name": part.name, "label": part.label, "states": _states(part, data)},
        "all sources": [_states(one, data) for one in parts(data)] if of_all else [],
        "evaluation": {name: state_of(source) for name, source in data.eval.items()},
        "decontaminate": data.decontaminate.model_dump(mode="json"),
        "eval_share": data.eval_share,
        "transforms": [one.model_dump(mode="json") for one in data.transforms],
        "code": {**{str(i): fingerprints(one) for i, one in enumerate(data.transforms)}, "posttrain": _own_code()},
        "seed": recipe.seed if drawn else None,
        "encoding": encoding,
        "tokenizer": tokenizer_identity(tokenizer),
        "ends": eos_ids(model, tokenizer),
        "context": context_of(model),
        "read as": read_as(algorithm.needs),
        "teacher": None if teacher is None else asdict(teacher),
        "versions": {name: version(name) for name in ("posttrain", "transformers", "tokenizers")},
    }


def digest_of(key: Any) -> str:
    """SHA-256 of what something depends on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


def _states(part: Part, data: DataConfig) -> list[Any]:
    """Of a source; or of all that earlier stages were trained on, with what they held out, and how much is kept of it."""
    if part.source is not None:
        return [state_of(part.source)]
    assert data.replay is not None
    return [
        data.replay.buffer,
        *(
            [stage, earlier.eval_share, *(state_of(source) for source in sources_in(earlier.train).values())]
            for stage, earlier in data.replay.sources.items()
        ),
    ]


def _own_code() -> str:
    """Of what makes rows of records, which may change while the version stays."""
    known = hashlib.sha256()
    for path in sorted(path for folder in ENCODING for path in (HOME / folder).rglob("*.py")):
        known.update(f"{path.relative_to(HOME)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return known.hexdigest()
