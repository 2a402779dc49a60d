"""Models merged: each formula against a plain one in numpy, what stays as it is, and what is held in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch.profiler import profile
from transformers import AutoModelForCausalLM

from posttrain.errors import CheckpointError, SetupError
from posttrain.model.merging.folder import check_models, merge_models
from posttrain.model.merging.kinds import AnyMerge, MergeConfig
from posttrain.model.merging.tensors import Same
from posttrain.telling import hearing
from tiny import make_model

BASE, A, B = "base", "a", "b"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and two models that have moved from it by a little."""
    folder = tmp_path_factory.mktemp("models")
    model, tokenizer = make_model(dtype="float32")
    for number, name in enumerate((BASE, A, B)):
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05 * (number > 0))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def config(**options: Any) -> MergeConfig:
    return TypeAdapter(AnyMerge).validate_python(options)


def merged(folder: Path, output: Path, **options: Any) -> dict[str, torch.Tensor]:
    asked = config(**options)
    with hearing() as heard:
        merge_models(asked, [folder / place for place in asked.places], output)
    assert not heard
    return load_file(output / "model.safetensors")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def linear(base: Any, a: Any, b: Any) -> Any:
    return 0.3 * a + 0.7 * b


def wise_ft(base: Any, a: Any, b: Any) -> Any:
    return 0.75 * base + 0.25 * a


def arithmetic(base: Any, a: Any, b: Any) -> Any:
    return base + 0.5 * (a - base) - 0.25 * (b - base)


def slerp(base: Any, a: Any, b: Any) -> Any:
    omega = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin(0.7 * omega) * a + np.sin(0.3 * omega) * b) / np.sin(omega)


def ties(base: Any, a: Any, b: Any) -> Any:
    def trimmed(vector: Any) -> Any:
        order = np.argsort(-np.abs(vector.astype(np.float32)), axis=None, kind="stable")
        keep = np.zeros(vector.size, bool)
        keep[order[: int(0.4 * vector.size)]] = True
        return vector * keep.reshape(vector.shape)

    vectors = np.stack([trimmed(a - base), trimmed(b - base)])
    agree = np.sign(vectors) == np.where(vectors.sum(0) >= 0, 1, -1)
    return base + (vectors * agree).sum(0) / np.maximum(agree.sum(0), 1)


NAIVE = {
    linear: {"method": "linear", "models": [A, B], "weights": [0.3, 0.7]},
    wise_ft: {"method": "wise_ft", "base": BASE, "models": [A], "alpha": 0.25},
    arithmetic: {"method": "task_arithmetic", "base": BASE, "models": [A, B], "weights": [0.5, -0.25]},
    slerp: {"method": "slerp", "models": [A, B], "t": 0.3},
    ties: {"method": "ties", "base": BASE, "models": [A, B], "density": 0.4},
}


@pytest.mark.parametrize("naive", NAIVE, ids=lambda one: one.__name__)
def test_a_merge_is_its_formula(naive: Any, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several blocks; and its folder loads with these tensors."""
    monkeypatch.setattr("posttrain.model.merging.tensors.BLOCK", 1000)
    found = merged(three, tmp_path / "out", **NAIVE[naive])
    given = [{name: one.double().numpy() for name, one in tensors(three / place).items()} for place in (BASE, A, B)]
    assert found.keys() == given[0].keys()
    for name, tensor in found.items():
        wanted = naive(*(one[name] for one in given))
        assert np.abs(tensor.double().numpy() - wanted).max() < 1e-7 * max(1, np.abs(wanted).max())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.items())


SAME = {
    "the first": (A, {"method": "linear", "models": [A, B], "weights": [1, 0]}),
    "the second": (B, {"method": "linear", "models": [A, B], "weights": [0, 1]}),
    "three times itself": (A, {"method": "linear", "models": [A, A, A]}),
    "an arc to itself": (A, {"method": "slerp", "models": [A, A], "t": 0.3}),
    "the arc's end": (B, {"method": "slerp", "models": [A, B], "t": 1}),
    "alpha 0": (BASE, {"method": "wise_ft", "base": BASE, "models": [A], "alpha": 0}),
    "alpha 1": (A, {"method": "wise_ft", "base": BASE, "models": [A], "alpha": 1}),
    "one vector": (A, {"method": "task_arithmetic", "base": BASE, "models": [A]}),
    "no vector": (BASE, {"method": "task_arithmetic", "base": BASE, "models": [A, B], "weights": [0, 0]}),
    "nothing dropped": (A, {"method": "dare", "base": BASE, "models": [A], "density": 1}),
    "twice what agrees": (A, {"method": "ties", "base": BASE, "models": [A, A], "density": 1}),
}


@pytest.mark.parametrize("case", SAME)
def test_what_stays_as_it_is_does_bit_for_bit(case: str, three: Path, tmp_path: Path) -> None:
    place, options = SAME[case]
    found = merged(three, tmp_path / "out", **options)
    for name, tensor in tensors(three / place).items():
        assert torch.equal(found[name].view(torch.int32), tensor.view(torch.int32)), name


class Whole:
    """A tensor that is read as safetensors' slices are."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __getitem__(self, place: Any) -> torch.Tensor:
        return self._tensor[place]


def by(base: torch.Tensor, *models: torch.Tensor, **options: Any) -> torch.Tensor:
    """One tensor merged."""
    same = Same("one", tuple(base.shape), [Whole(base), *map(Whole, models)])
    return torch.cat(list(config(base="base", models=["a", "b"][: len(models)], **options).build()(same)))


def test_ties_keeps_the_larger_of_opposite_vectors() -> None:
    base, vector = torch.ones(4), torch.tensor([1.0, -2.0, 3.0, -4.0])
    found = by(base, base + 2 * vector, base - vector, method="ties", density=1)
    assert torch.equal(found, (base + 2 * vector).double())


def test_the_mean_of_what_dare_makes_is_the_task_vector() -> None:
    """Over 10^4 masks: each entry within five standard errors; and another tensor's mask is another one."""
    vector = torch.tensor([1.0, -2.0, 0.5])
    many = vector.repeat(10_000, 1)
    found = by(torch.zeros_like(many), many, method="dare", density=0.3).reshape(many.shape)
    error = 5 * vector.abs() * ((1 - 0.3) / 0.3 / 10_000) ** 0.5
    assert bool(((found.mean(0) - vector).abs() < error).all())
    assert {*found[:, 0].tolist()} == {0.0, 1 / 0.3}
    assert torch.equal(found.reshape(-1), by(torch.zeros_like(many), many, method="dare", density=0.3))
    assert not torch.equal(found.reshape(-1), by(torch.zeros_like(many), many, method="dare", density=0.3, seed=1))


def test_what_agrees_after_dropping_is_averaged() -> None:
    base, vector = torch.zeros(50), torch.arange(50.0) + 1
    found = by(base, base + vector, base - 3 * vector, method="dare", density=0.5, agree=True)
    drawn = {0.0, 2.0, -6.0}
    assert {round(float(x), 6) for x in found / vector} <= drawn and len({round(float(x), 6) for x in found / vector}) == 3


@pytest.mark.parametrize("method", ["linear", "ties", "dare", "slerp"])
def test_no_more_is_held_than_a_tensor_of_each_model_and_one(method: str, tmp_path: Path) -> None:
    """What torch has allocated and not given back, at its most; what it maps of a file, which is of the file's size, is no
    memory of the process.
    """
    model, tokenizer = make_model(dtype="float32", intermediate_size=8192)
    for name in (BASE, A, B):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    options = {"models": [A, B], **({"base": BASE} if method in ("ties", "dare") else {})}
    largest = max(one.numel() * one.element_size() for one in tensors(tmp_path / A).values())
    asked = config(method=method, **options)
    places = [tmp_path / place for place in asked.places]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posttrain.model.merging.tensors.BLOCK", 2**12)
        patch.setattr("posttrain.model.merging.folder.ROOM", float("inf"))  # the proof of log-probs has models whole
        with profile(profile_memory=True) as seen, hearing():
            merge_models(asked, places, tmp_path / "out")
    recorded: Any = seen.profiler
    events = [one for one in recorded.kineto_results.events() if one.name() == "[memory]"]
    mapped = {path.stat().st_size for path in tmp_path.rglob("*.safetensors")}
    events = [one for one in sorted(events, key=lambda one: one.start_ns()) if abs(one.nbytes()) not in mapped]
    held = np.cumsum([one.nbytes() for one in events])
    assert largest < held.max() <= (len(places) + 1) * largest


def test_a_model_of_several_dtypes_is_written_with_its_index(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 beside float32 and integers, in files of bounded size, as transformers and the proof find them."""
    monkeypatch.setattr("posttrain.model.merging.header.SHARD_BYTES", 20_000)
    for name in (A, B):
        own = tensors(three / name)
        own = {key: one.bfloat16() if "mlp" in key else one for key, one in own.items()}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((three / name / "config.json").read_text())
        save_file({**own, "steps": torch.tensor(7)}, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("posttrain.model.merging.folder.ROOM", float("inf"))
    asked = config(method="linear", models=[A, B])
    with hearing() as heard:
        merge_models(asked, [tmp_path / A, tmp_path / B], tmp_path / "out")
    assert [one.rule for one in heard] == ["merge-not-scored"]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    files = {file: load_file(tmp_path / "out" / file) for file in {*index.values()}}
    a, b = tensors(tmp_path / A), tensors(tmp_path / B)
    assert len(files) > 2 and index.keys() == a.keys()
    for name, file in index.items():
        wanted = a[name] if name == "steps" else ((a[name].double() + b[name].double()) / 2).to(a[name].dtype)
        assert torch.equal(files[file][name], wanted)


def test_another_dtype_is_asked_for(three: Path, tmp_path: Path) -> None:
    found = merged(three, tmp_path / "out", method="linear", models=[A, B], dtype="bfloat16")
    assert {one.dtype for one in found.values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype is torch.bfloat16


def test_what_does_not_fit_is_refused_by_name(three: Path, tmp_path: Path) -> None:
    narrow, _ = make_model(dtype="float32", intermediate_size=32)
    deep, _ = make_model(dtype="float32", num_hidden_layers=3)
    for name, model in (("narrow", narrow), ("deep", deep)):
        model.save_pretrained(tmp_path / name)
    with pytest.raises(
        SetupError, match=r"narrow cannot be merged with .*a: .*mlp\.down_proj\.weight \(\(32, 48\) and \(32, 32\)\)"
    ):
        check_models([three / A, tmp_path / "narrow"])
    with pytest.raises(SetupError, match=r"only one of them has model\.layers\.2\."):
        check_models([three / A, tmp_path / "deep"])
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(SetupError, match="is an adapter, and whole models are merged"):
        check_models([three / A, tmp_path / "adapter"])
    with pytest.raises(SetupError, match=r"is no model: a folder with config\.json and safetensors is expected"):
        check_models([tmp_path, three / A])


def test_what_is_not_finite_is_not_written(three: Path, tmp_path: Path) -> None:
    own = tensors(three / A)
    own["model.norm.weight"][3] = float("nan")
    (tmp_path / A).mkdir()
    (tmp_path / A / "config.json").write_text((three / A / "config.json").read_text())
    save_file(own, tmp_path / A / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"model\.norm\.weight: the merged model has numbers in it that are not finite"):
        merge_models(config(method="linear", models=[A, B]), [tmp_path / A, three / B], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_file_that_is_not_the_formula_is_found(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that the disk has turned."""

    def turned(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(bytes(data))

    monkeypatch.setattr("posttrain.model.proofs.disk.open_to_others", turned)
    with pytest.raises(CheckpointError, match=r"would not be the merged model: .* has other values"):
        merge_models(config(method="linear", models=[A, B]), [three / A, three / B], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_alike_two_vectors_are_is_said(three: Path, tmp_path: Path) -> None:
    """Of models that have moved at random, about 0; of one twice, 1."""
    asked = config(method="task_arithmetic", base=BASE, models=[A, A])
    [note] = merge_models(asked, [three / place for place in asked.places], tmp_path / "out")
    assert note == "cosine of what a and a have learnt: 1.000"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "linear", "models": [A]}, "models: linear takes 2 or more, and here is 1"),
        ({"method": "slerp", "models": [A, B, A]}, "models: slerp takes 2, and here are 3"),
        ({"method": "wise_ft", "base": BASE, "models": [A, B]}, "models: wise_ft takes 1 beside the base, and here are 2"),
        ({"method": "linear", "models": [A, B], "weights": [1, 1]}, "they add up to 2, and those of an average to 1"),
        ({"method": "ties", "base": BASE, "models": [A, B], "weights": [1]}, "weights: there are 1, of 2 models"),
        ({"method": "ties", "models": [A, B]}, "Field required"),
        ({"method": "ties", "base": BASE, "models": [A, B], "density": 0}, "greater than 0"),
        ({"method": "linear", "models": [A, B], "density": 0.5}, "unknown key"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        config(**options)
