"""Rows end to end are the padded batch, part by part, in a file and in one of the earlier form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from posttrain import Batch, Origin
from posttrain.algorithms import build_algorithm
from posttrain.data.rows import Row
from posttrain.estimator.batch import PER_TOKEN
from posttrain.estimator.transfer import at_once
from posttrain.rewards.kinds.repetition import repeated
from posttrain.train.checkpoint import collection_file
from posttrain.train.collect.collection import Collection, Counted
from posttrain.train.collect.flat import HUGE_PAGES_FROM, Flat

LENGTHS = (3, 0, 7, 1, 5, 2)


def fields(batch: Batch) -> dict[str, Any]:
    named = {f"by name {name}": scores for name, scores in batch.rewards_by_name.items()}
    return {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch) if f.name != "rewards_by_name"} | named


def assert_same(found: Batch, expected: Batch, width: int | None = None) -> None:
    ours, theirs = fields(found), fields(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            value = value[:, :width] if name in PER_TOKEN else value
            assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
        else:
            assert ours[name] == value, name


def padded(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    draw = torch.Generator().manual_seed(0)
    there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Batch(
        loss_mask=there & (torch.rand(there.shape, generator=draw) < 0.8),
        tokens=torch.randint(2, 9, there.shape, generator=draw, dtype=torch.int32) * there,
        origin=torch.where((torch.arange(max(lengths)) < 2) & there, Origin.DEMO, Origin.ROLLOUT).to(torch.int8),
        behavior_logp=torch.where(there, -torch.rand(there.shape, generator=draw), 0.0),
        advantage=torch.randn(len(lengths), 1, generator=draw, dtype=torch.float64).expand(there.shape),
        group=torch.arange(len(lengths)) // 2,
        reward=torch.rand(len(lengths), generator=draw, dtype=torch.float64),
        rewards_by_name={"a.b": torch.rand(len(lengths), generator=draw)},
        progress=0.25,
    )


def collection(batch: Batch) -> Collection:
    assert batch.tokens is not None
    rows = tuple(
        Row(np.array([1, i], np.int32), tokens[:n].numpy(), np.ones(n, np.bool_))
        for i, (tokens, n) in enumerate(zip(batch.tokens, LENGTHS, strict=True))
    )
    units = tuple((i,) for i in range(len(rows)))
    return Collection(
        rows=rows,
        units=units,
        steps=((0, 1, 2), (3, 4, 5)),
        where=tuple(f"row {i}" for i in range(6)),
        sources=tuple(f"source {i % 2}" for i in range(6)),
        flat=Flat.of(batch, LENGTHS),
        muted=(4,),
        metrics={"reward/mean": 0.1 + 0.2},
        samples=({"completion": "é\ud800", "correct": None},),
    )


def test_rows_end_to_end_are_the_padded_batch() -> None:
    batch = padded()
    flat = Flat.of(batch, LENGTHS)
    assert flat.fields["tokens"].shape == (sum(LENGTHS),) and flat.fields["advantage"].shape == (6, 1)
    assert_same(flat.batch(), batch)
    assert_same(flat.batch([4, 0, 1]), batch.take([4, 0, 1]))
    assert_same(flat.batch([4, 0], width=5), batch.take([4, 0]), 5)
    assert flat.any(flat.fields["loss_mask"]).tolist() == batch.loss_mask.any(-1).tolist()


def test_a_batch_over_the_bound_of_huge_pages_is_the_same() -> None:
    lengths = (3, HUGE_PAGES_FROM // 2)
    assert_same(Flat.of(padded(lengths), lengths).batch(), padded(lengths))


def test_what_prepare_changes_is_taken_over_and_the_rest_kept() -> None:
    flat = Flat.of(padded(), LENGTHS)
    whole = flat.batch()
    kept = torch.arange(6)[:, None] != 2
    after = whole.replace(
        loss_mask=whole.loss_mask & kept, advantage=None, entropy=torch.arange(7.0).expand(6, 7).contiguous()
    )
    changed = flat.changed(whole, after)
    assert changed.fields["tokens"] is flat.fields["tokens"] and changed.get("advantage") is None
    there = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    assert after.entropy is not None
    assert_same(changed.batch(), after.replace(entropy=torch.where(there, after.entropy, 0.0)))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "luffy"])
def test_counts_and_signal_of_parts_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"dr_grpo": {"max_tokens": 7}, "luffy": {"max_tokens": 7}}.get(name, {})
    algorithm, whole = build_algorithm(name, **options), padded().replace(advantage=None)
    whole = whole.replace(advantage=torch.tensor([0.0, 1, -1, 0, 2, 0])[:, None].expand(6, 7))
    made = collection(padded()).with_batch(whole)
    monkeypatch.setattr("posttrain.train.collect.collection.ROWS", 2)
    counted = Counted.of(algorithm, made, range(6))
    assert counted.counts == algorithm.counts(whole) and counted.carries == algorithm.has_signal(whole).tolist()
    assert counted.sampled == int((whole.loss_mask & (whole.origin == 0)).sum()) > 0
    assert counted.demonstrated == int((whole.loss_mask & (whole.origin == 1)).sum()) > 0


def test_no_part_cuts_a_preference_pair() -> None:
    pairs = padded().replace(chosen=torch.arange(6) % 2 == 0)
    flat = Flat.of(pairs, LENGTHS)
    parts = list(flat.parts([(4, 5), (0, 1), (2, 3)], 1))
    assert sorted(unit for part, _ in parts for unit in part) == [0, 1, 2]
    for part, batch in parts:
        assert batch.chosen is not None and batch.chosen.tolist() == [True, False] * len(part)
    with pytest.raises(ValueError, match="cut a preference pair"):
        flat.batch([0, 3])


def assert_same_collection(found: Collection, expected: Collection) -> None:
    assert_same(found.batch, expected.batch)
    for name in ("units", "steps", "where", "sources", "muted"):
        assert getattr(found, name) == getattr(expected, name)
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert (one.prompt.tolist(), one.completion.tolist()) == (other.prompt.tolist(), other.completion.tolist())


def test_a_collection_comes_back_from_its_file(tmp_path: Path) -> None:
    expected = collection(padded())
    collection_file.save(expected, tmp_path / "c.safetensors")
    found = collection_file.load(tmp_path / "c.safetensors")
    assert_same_collection(found, expected)
    assert found.metrics == expected.metrics and list(found.samples) == list(expected.samples)


def test_a_file_in_which_rows_were_padded_is_read(tmp_path: Path) -> None:
    there, batch = torch.arange(7) < torch.tensor(LENGTHS)[:, None], padded()
    assert batch.advantage is not None
    batch = batch.replace(advantage=torch.where(there, batch.advantage, 0.0))
    expected = collection(batch)
    parts = {name: [getattr(row, name) for row in expected.rows] for name in ("prompt", "completion", "mask")}
    tensors = {f"rows.{name}": torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}
    tensors |= {f"rows.{name}.sizes": torch.tensor([len(one) for one in arrays]) for name, arrays in parts.items()}
    tensors |= {f"batch.{name}": v.contiguous() for name, v in fields(batch).items() if isinstance(v, torch.Tensor)}
    tensors["batch.rewards_by_name.a.b"] = tensors.pop("batch.by name a.b")
    rest = {name: getattr(expected, name) for name in ("units", "steps", "where", "sources", "muted")}
    metadata = {"collection": json.dumps({**rest, "progress": batch.progress})}
    save_file(tensors, tmp_path / "c.safetensors", metadata)
    assert_same_collection(collection_file.load(tmp_path / "c.safetensors"), expected)


@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_the_share_of_repeated_grams_is_that_of_a_set_of_them(n: int) -> None:
    draw = np.random.default_rng(n)
    for length, entries in [(0, 3), (3, 3), (200, 3), (200, 250_000), (3000, 2)]:
        tokens = draw.integers(0, entries, length).tolist()
        grams = [tuple(tokens[i : i + n]) for i in range(length - n + 1)]
        assert repeated(tokens, n) == (1 - len(set(grams)) / len(grams) if grams else 0.0)


def test_a_batch_is_sent_in_one_piece_with_every_bit() -> None:
    batch = padded().replace(chosen=torch.arange(6) % 2 == 0)
    own = [value for value in fields(batch).values() if isinstance(value, torch.Tensor)]
    for sent, value in zip(at_once(own, torch.device("cpu")), own, strict=True):
        assert sent.dtype == value.dtype and torch.equal(sent, value) and sent.untyped_storage().nbytes() > 200
    assert batch.to(torch.device("meta")).loss_mask.is_meta and batch.to(torch.device("cpu")) is batch
