"""A model by name or folder, read whole: no weight that it lacks is made up, no pickle is opened, and it can be saved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from posttrain.errors import SetupError
from posttrain.model.adapters.rounded import as_any_other, check_base, make_rounded, noted, when_loading
from posttrain.model.pretrained.tokenizer import read_tokenizer
from posttrain.settings.adapters.kinds import REFUSED
from posttrain.settings.model import ModelConfig
from posttrain.telling import tell

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
_WHOLE = "Name the model that they were made of, and round that: model.quantization beside model.adapter."
NAMED = 4  # tensors, in a message; the others are counted


def pretrained(config: ModelConfig, *, masters: bool) -> tuple[Any, Any]:
    """Model and tokenizer; of an adapter's folder, its base with the adapter on it, which is trained further. `masters` is of
    `load`; an adapter is float32, and its base is held in the dtype.

    Raises:
        SetupError: there is no such folder, it cannot be read, or its files are not all of the model.
    """
    assert config.name is not None
    folder = Path(config.name)
    _check_place(config.name)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return _with_its_base(config, folder)
    return _model(config, held_in(config, masters=masters)), _tokenizer(config, config.name)


def outlined(config: ModelConfig) -> tuple[Any, Any]:
    """The configs of a model, of an adapter's folder its base's, as `config` and `generation_config`; and the tokenizer.

    Raises:
        SetupError: as for `pretrained`; no weights are looked for.
    """
    assert config.name is not None
    folder, place = Path(config.name), config.name
    _check_place(place)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        place = _base_of(folder)
    try:
        own = AutoConfig.from_pretrained(place, **_source(config))
        _change(own, config)
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"The model {place} cannot be loaded: {_reason(error)}") from error
    try:
        generation = GenerationConfig.from_pretrained(place, revision=config.revision or "main")
    except OSError:  # it has none of its own: transformers makes it of the config
        generation = GenerationConfig.from_model_config(own)
    described = SimpleNamespace(config=own, generation_config=generation)
    return described, _tokenizer(config, config.name if (folder / "tokenizer_config.json").is_file() else place)


def held_in(config: ModelConfig, *, masters: bool) -> torch.dtype:
    """The dtype of a model's parameters in memory, but for an adapter's."""
    halves = config.dtype == "bfloat16"
    return torch.float32 if masters and halves and config.adapter is None else getattr(torch, config.dtype)


def first_line(error: Exception) -> str:
    """Of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_place(name: str) -> None:
    folder = Path(name)
    if folder.is_dir():
        return
    if folder.is_file():
        raise SetupError(f"model.name: {name} is a file; name the folder that it lies in.")
    if not HUB_NAME.fullmatch(name) or (folder.parent != Path() and folder.parent.is_dir()) or name in (".", ".."):
        raise SetupError(f"model.name: there is no such folder: {folder.absolute()}")


def _tokenizer(config: ModelConfig, place: str) -> Any:
    try:
        return read_tokenizer(place, **_source(config))
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"The tokenizer of {place} cannot be loaded: {first_line(error)}") from error


def _source(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


def _model(config: ModelConfig, dtype: torch.dtype) -> Any:
    name = config.label
    try:
        own = AutoConfig.from_pretrained(name, **_source(config))
        _change(own, config)
        _check_no_pickles(Path(name))
        if config.quantization is not None and getattr(own, "quantization_config", None) is not None:
            raise SetupError(f"{name}: its files are quantised already. {_WHOLE}")
        rounding = {} if config.quantization is None else when_loading(config.quantization)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            config=own,
            dtype=dtype,
            attn_implementation=config.attn_implementation,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **rounding,
            **_source(config),
        )
        model, report = loaded
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"The model {name} cannot be loaded: {_reason(error)}") from error
    _check_report(name, report)
    _mend_generation(name, model)
    if config.quantization is not None:
        make_rounded(model, config.quantization, name)
    elif not all(p.is_floating_point() for p in model.parameters()):
        raise SetupError(f"{name}: its files are quantised, and were not to be. {_WHOLE}")
    return model


def _reason(error: Exception) -> str:
    hint = " Only safetensors are read." if "safetensors" in str(error) else ""
    return first_line(error) + hint


def _check_no_pickles(folder: Path) -> None:
    """Of a folder whose weights are pickles only, says so."""
    pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)] if folder.is_dir() else []
    if pickles and not any(folder.glob("*.safetensors")):
        raise SetupError(
            f"{folder} has its weights in {sorted(pickles)[0]}, a pickle, which is not opened: only safetensors are read. If "
            "you trust it, write it anew: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) of transformers."
        )


def _check_report(name: str, report: dict[str, Any]) -> None:
    """Of transformers' loading: a tensor that was not there, or has another shape, would be trained from random numbers."""
    shapes = [
        f"{key} ({_shape(there)} in the file, {_shape(here)} in the model)" for key, there, here in report["mismatched_keys"]
    ]
    for what, names in (("lack", report["missing_keys"]), ("have in another shape", shapes)):
        if names:
            raise SetupError(
                f"{name}: its files {what} {listed(names)}; these would be random numbers. Bring the whole model, or the "
                "config.json that belongs to these files."
            )
    if report["unexpected_keys"]:
        tell(
            "weights-not-used",
            f"{name}: its files have {listed(report['unexpected_keys'])}, for which the model has no place.",
        )


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def listed(names: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more tensors" if more > 0 else "")


def _mend_generation(name: str, model: Any) -> None:
    """Takes out of its generation config what would be ignored in sampling and cannot be saved."""
    own: GenerationConfig | None = getattr(model, "generation_config", None)
    if own is None:
        return
    taken: dict[str, Any] = {}
    while (fault := _fault(own)) is not None:
        field = next((one for one in re.findall(r"`(\w+)`:", fault) if getattr(own, one, None) is not None), None)
        if field is None:
            raise SetupError(f"{name}: its generation_config.json cannot be saved again: {fault.splitlines()[0]}")
        taken[field] = getattr(own, field)
        setattr(own, field, None)
    if taken:
        values = ", ".join(f"{field}: {value}" for field, value in taken.items())
        tell(
            "generation-config",
            f"{name}: its generation_config.json cannot be saved as it is, and is kept without what has no effect: {values}.",
        )


def _fault(generation: GenerationConfig) -> str | None:
    try:
        generation.validate(strict=True)
    except ValueError as error:
        return str(error)
    return None


def _change(own: Any, config: ModelConfig) -> None:
    """The fields of the model's own config that the recipe changes; one that is a mapping keeps its other keys."""
    for name, value in config.config.items():
        if not hasattr(own, name):
            raise SetupError(f"model.config: {name} is no field of {config.name}'s {type(own).__name__}.")
        before = getattr(own, name)
        setattr(own, name, {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value)


def _with_its_base(config: ModelConfig, folder: Path) -> tuple[Any, Any]:
    if config.adapter is not None:
        raise SetupError(
            f"model.name: {folder} is an adapter, which is trained further as it is: leave model.adapter out, or name a "
            "folder with the whole model (a run's final/)."
        )
    base = _base_of(folder)
    of_base = {"name": base, "quantization": noted(folder)}
    model = _model(config.model_copy(update=of_base), getattr(torch, config.dtype))
    own = (folder / "tokenizer_config.json").is_file()
    return with_adapter(model, folder, base), _tokenizer(config, str(folder) if own else base)


def with_adapter(model: Any, folder: Path, base: str, *, key: str = "") -> Any:
    """The model, which is called `base`, with the adapter that lies in a folder, which a recipe names by `key`.

    Raises:
        SetupError: there is none, its kind is not offered, or it does not fit.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    if not (folder / "adapter_config.json").is_file():
        raise SetupError(f"{f'{key}: t' if key else 'T'}here is no adapter in {folder.absolute()} (adapter_config.json).")
    _check_no_pickles(folder)
    described = PeftConfig.from_pretrained(str(folder))
    kind, init = str(described.peft_type).rpartition(".")[2].lower(), str(getattr(described, "init_lora_weights", ""))
    if kind in REFUSED:
        raise SetupError(f"{folder}: an adapter of kind {kind} is not supported: {REFUSED[kind]}.")
    if init.startswith("pissa_niter"):
        raise SetupError(
            f"{folder}: it was begun with {init}, by random numbers that it does not hold, so that nobody can tell what was "
            "taken out of its base. Take final/ or best/ of its run: the adapter there is plain LoRA."
        )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise SetupError(f"{folder}: the adapter does not fit {base}: {first_line(error)}") from error
    there, here = load_peft_weights(str(folder), device="cpu"), get_peft_model_state_dict(adapted)
    if there.keys() != here.keys():
        raise SetupError(
            f"{folder}: the adapter does not fit {base}: only one of them has {listed(there.keys() ^ here.keys())}."
        )
    check_base(adapted, folder, base)
    as_any_other(adapted)
    return adapted


def _base_of(folder: Path) -> str:
    """The model that an adapter is of."""
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise SetupError(
            f"model.name: {folder} is an adapter and does not say of which model. Write its folder into "
            "base_model_name_or_path of adapter_config.json, or name a folder with the whole model (a run's final/)."
        )
    _check_place(base)
    return base
