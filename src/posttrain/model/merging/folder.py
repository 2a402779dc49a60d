"""The folder of a merged model: written a block at a time, and proved against the formula and by its log-probs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from posttrain.errors import CheckpointError, SetupError
from posttrain.model.merging.header import DTYPES, WriteTensors
from posttrain.model.merging.kinds import Formula, MergeConfig, OverBase
from posttrain.model.merging.tensors import Same
from posttrain.model.pretrained.model import listed, pretrained
from posttrain.model.proofs import disk
from posttrain.model.proofs.files import Files, files_fault
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.saved import ROOM, score_fault
from posttrain.model.saving import writing
from posttrain.settings.model import ModelConfig
from posttrain.telling import tell

PROBES = ("The answer is", "1 + 2 = 3. What comes next, and why?", "Once there was a model that was asked to be another one.")
"""Texts on which what is written must give the log-probs of what is in memory."""
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "additional_chat_templates")
"""What is copied of the first model: config, generation config and tokenizer."""
NOT_BESIDE = ("note.json", "merge.json")
OF_NO_MOMENT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")
"""Keys of a config by which two models may differ."""


class Models:
    """Models whose tensors have the same names and shapes.

    Raises:
        SetupError: they do not fit together, by the names that are in the way; or the files of one cannot be used.
    """

    def __init__(self, folders: Sequence[Path], stack: ExitStack) -> None:
        self.first, self._files = folders[0], [_files(folder, stack) for folder in folders]
        configs = [_config(folder) for folder in folders]
        self.names = sorted(self._files[0].names)
        for folder, files, config in zip(folders[1:], self._files[1:], configs[1:], strict=True):
            if {*files.names} != {*self.names}:
                alone = listed({*files.names} ^ {*self.names})
                raise SetupError(f"{folder} cannot be merged with {self.first}: only one of them has {alone}.")
            other = {name: (a, b) for name in self.names if (a := self._shape(name)) != (b := _shape(files, name))}
            if other:
                shown = [f"{name} ({a} and {b})" for name, (a, b) in other.items()]
                raise SetupError(f"{folder} cannot be merged with {self.first}: {listed(shown)} differ in shape.")
            different = [key for key in {**configs[0], **config} if config.get(key) != configs[0].get(key)]
            if keys := [key for key in different if key not in OF_NO_MOMENT]:
                tell(
                    "merge-config", f"{folder}: its config.json has another {', '.join(keys)}; that of {self.first} is kept."
                )
        for name in self.names:
            if self._dtype(name) in DTYPES:
                continue
            if any(not torch.equal(self._files[0].read(name), files.read(name)) for files in self._files[1:]):
                raise SetupError(
                    f"{name} is {self._dtype(name)}, of which nothing can be averaged, and differs between the models. "
                    "Quantised models are not merged: merge those that they were made of."
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        return _shape(self._files[0], name)

    def _dtype(self, name: str) -> str:
        return self._files[0].sliced(name).get_dtype()

    def same(self) -> Iterator[Same]:
        """Each tensor that can be averaged, of all models."""
        for name in self.names:
            if self._dtype(name) in DTYPES:
                yield Same(name, self._shape(name), [files.sliced(name) for files in self._files])

    def kept(self) -> Iterator[tuple[str, Tensor]]:
        """The others, which are one in all models."""
        return ((name, self._files[0].read(name)) for name in self.names if self._dtype(name) not in DTYPES)

    def dtype(self, name: str, asked: str | None) -> torch.dtype:
        """Of what is written."""
        return DTYPES[self._dtype(name)] if asked is None else getattr(torch, asked)

    @property
    def dtypes(self) -> set[torch.dtype]:
        """Of the first's tensors."""
        return {DTYPES[kind] for name in self.names if (kind := self._dtype(name)) in DTYPES}


def _shape(files: Files, name: str) -> tuple[int, ...]:
    return tuple(files.sliced(name).get_shape())


def _files(folder: Path, stack: ExitStack) -> Files:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise SetupError(
            f"{folder} is an adapter, and whole models are merged. Fold it into its base: posttrain merge {folder} --output …"
        )
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise SetupError(f"{folder} is no model: a folder with config.json and safetensors is expected.")
    try:
        files = Files(folder, stack)
    except Exception as error:  # safetensors', json's and the system's
        raise SetupError(f"{folder}: its files cannot be read: {error}") from error
    if files.faults:
        raise SetupError(f"{folder}: {files.faults[0]}.")
    return files


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"{folder}/config.json cannot be read: {error}") from error


def check_models(folders: Sequence[Path]) -> None:
    """Whether models can be merged.

    Raises:
        SetupError: as `Models`.
    """
    with ExitStack() as stack:
        Models(folders, stack)


def merge_models(config: MergeConfig, folders: Sequence[Path], output: Path) -> list[str]:
    """Writes the merged model, proved, with the config and the tokenizer of the first; and says what is to be known of it.

    A block of each model's tensor is in memory at a time, and where the formula asks for it one tensor whole; for the proof
    of the files a tensor and its copy. The proof of the log-probs takes two whole models, and is left out, which is told,
    where there is no room.

    Args:
        config: how.
        folders: of the models, in the order of its places.
        output: is put in place of what was there.

    Raises:
        SetupError: they do not fit together, or what they make is not finite.
        CheckpointError: it cannot be written, or is not what the formula gives.
    """
    formula = config.build()
    with ExitStack() as stack:
        models = Models(folders, stack)
        notes = _cosines(models, config) if isinstance(config, OverBase) and len(config.models) > 1 else []
        with writing(output) as fresh:
            try:
                fresh.mkdir(parents=True)
                _write(models, formula, config, fresh)
                fault = _fault(models, formula, config, fresh)
                if fault is not None:
                    raise CheckpointError(f"{output} would not be the merged model: {fault}. Nothing was kept.")
            except (SetupError, CheckpointError):
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            disk.publish(fresh, output)
    return notes


def _write(models: Models, formula: Formula, config: MergeConfig, fresh: Path) -> None:
    for path in {path for pattern in BESIDE for path in models.first.glob(pattern)}:
        if path.is_dir():
            shutil.copytree(path, fresh / path.name)
        elif path.name not in NOT_BESIDE and not path.name.endswith(".index.json"):
            shutil.copy(path, fresh / path.name)
    if config.dtype is not None:
        own = _config(models.first)
        own.pop("torch_dtype", None)
        (fresh / "config.json").write_text(json.dumps({**own, "dtype": config.dtype}, indent=2) + "\n")
    (fresh / "merge.json").write_text(config.model_dump_json(indent=2) + "\n")
    same = {one.name: one for one in models.same()}
    shapes = {name: (models.dtype(name, config.dtype), one.shape) for name, one in same.items()}
    kept = dict(models.kept())
    shapes |= {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    with WriteTensors(fresh, shapes) as written:
        for name in written.order:
            blocks = formula(same[name]) if name in same else iter([kept[name].reshape(-1)])
            for block in blocks:
                if block.is_floating_point() and not bool(block.isfinite().all()):
                    raise SetupError(f"{name}: the merged model has numbers in it that are not finite. Take other weights.")
                written.block(block)
    disk.open_to_others(fresh)


def _merged(models: Models, formula: Formula, config: MergeConfig) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, whole, one at a time."""
    for same in models.same():
        whole, start = torch.empty(same.elements, dtype=models.dtype(same.name, config.dtype)), 0
        for block in formula(same):
            whole[start : start + len(block)] = block.to(whole.dtype)
            start += len(block)
        yield same.name, whole.reshape(same.shape)
    yield from models.kept()


def _fault(models: Models, formula: Formula, config: MergeConfig, fresh: Path) -> str | None:
    """What is wrong with what was written, or None: each tensor against the formula, made anew; and the log-probs against
    those of the first model's class with these tensors in it.
    """
    filled, tokenizer = _to_be_filled(models, config, fresh)
    places = {} if filled is None else filled.state_dict()

    def expected() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in _merged(models, formula, config):
            if filled is not None:
                places[name].copy_(tensor)
            yield name, tensor

    with torch.no_grad():
        fault = files_fault(fresh, expected())
    if fault is not None or filled is None:
        return fault
    rows = [ids for ids in (tokenizer.encode(text) for text in PROBES) if len(ids) > 1]
    return score_fault(fresh, filled, ProbeRows.of(rows, len(tokenizer)))


def _to_be_filled(models: Models, config: MergeConfig, fresh: Path) -> tuple[Any, Any]:
    """The first model and its tokenizer, where there is room for it and a copy, and it calls its tensors as its files do."""
    dtypes = models.dtypes if config.dtype is None else {getattr(torch, config.dtype)}
    dtype = next((one for one in ("float64", "bfloat16") if dtypes == {getattr(torch, one)}), "float32")
    size = sum(path.stat().st_size for path in fresh.glob("*.safetensors"))
    needed = 2 * ROOM * size * (2 if torch.float16 in dtypes else 1)  # which is read in float32
    why = f"two copies take about {needed / 1e9:.3g} GB, which are not free"
    if needed < psutil.virtual_memory().available:
        settings: dict[str, Any] = {"name": str(models.first), "dtype": dtype}
        model, tokenizer = pretrained(ModelConfig(**settings), masters=False)
        if not (other := {*models.names} - model.state_dict().keys()):
            return model, tokenizer
        why = f"its class has other names for {listed(other)}"
    tell("merge-not-scored", f"The files of the merged model are proved. Its log-probs are not: {why}.")
    return None, None


def _cosines(models: Models, config: OverBase) -> list[str]:
    """The cosine of each pair of task vectors, for a reader."""
    many = len(config.models)
    products = torch.zeros(many, many, dtype=torch.float64)
    for same in models.same():
        for _, vectors in same.vectors():
            stacked = torch.stack(vectors)
            products += stacked @ stacked.T
    norms = products.diagonal().sqrt()
    pairs = [(i, j) for i in range(many) for j in range(i + 1, many) if norms[i] > 0 and norms[j] > 0]
    named = ((config.models[i], config.models[j], float(products[i, j] / (norms[i] * norms[j]))) for i, j in pairs)
    return [f"cosine of what {one} and {other} have learnt: {cosine:.3f}" for one, other, cosine in named]
