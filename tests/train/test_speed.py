"""Every switch of how numbers are made gives the same ones: loss, metrics and every parameter's gradient, in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn.attention.bias import causal_lower_right

import flash
from posttrain import PostTrainer
from posttrain.algorithms import build_algorithm, example_values
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Origin
from posttrain.model.frozen.reference import Reference
from posttrain.model.frozen.teacher import Teacher
from posttrain.model.layout.make import Packed, Padded, make_layout
from posttrain.model.proofs.trials import usable_head, usable_layout
from posttrain.model.scoring import Scorer
from posttrain.settings.model import Adapter
from posttrain.settings.training import HeadPath, RowLayout
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations
from posttrain.train.learner import Learner
from tiny import make_examples, make_model, make_teacher, parameters

MakeTrainer = Callable[..., PostTrainer]
ALGORITHMS = {algorithm.name: algorithm for algorithm in example_values()}
ALGORITHMS["pass_k"] = build_algorithm("pass_k", rollouts=4, k=2)  # of all four answers to a question one is right, or none
MODELS: dict[str, dict[str, Any]] = {
    "full": {},
    "tied": {"tie_word_embeddings": True},
    "lora": {"adapter": Adapter(r=4)},
    "grouped heads": {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1},
}
FAST: tuple[HeadPath, RowLayout] = ("one_pass", "shared")
"""What is in effect where nobody says otherwise."""


def collection(algorithm: Algorithm, model: Any, tokenizer: Any) -> Collection:
    """Demonstrations; or groups of four rows to one prompt, with rewards, the last of which is one where that is needed."""
    rows = make_examples(
        model, tokenizer, sides=algorithm.needs.sides, crossed=algorithm.needs.crossed, worth=algorithm.needs.weight
    )[:8]
    if algorithm.needs.rollouts:
        alike = [dataclasses.replace(rows[i].rows[0], prompt=rows[i - i % 4].rows[0].prompt) for i in range(8)]
        rows = [dataclasses.replace(one, rows=(row,)) for one, row in zip(rows, alike, strict=True)]
    collected = collect_demonstrations(rows, progress=0.0)
    if not algorithm.needs.rollouts:
        return collected
    draw, shape = torch.Generator().manual_seed(3), collected.batch.loss_mask.shape
    shown = {"none": 0, "prefix": 2}.get(algorithm.needs.demonstration, 1000)
    demonstrated = (torch.arange(shape[0])[:, None] % 4 == 3) & (torch.arange(shape[1]) < shown)
    batch = collected.batch.replace(
        correct=torch.rand(shape[0], generator=draw) < 0.3,
        reward=torch.rand(shape[0], generator=draw, dtype=torch.float64),
        group=torch.arange(shape[0]) // 4,
        behavior_logp=-3 * torch.rand(shape, generator=draw, dtype=torch.float64),
        old_logp=-3 * torch.rand(shape, generator=draw, dtype=torch.float64) if algorithm.needs.old_logp else None,
        origin=torch.where(demonstrated, Origin.DEMO, Origin.ROLLOUT),
        baseline=torch.rand(shape[0] // 4, generator=draw, dtype=torch.float64).repeat_interleave(4),
        taught=torch.rand(shape[0], generator=draw) < 0.6 if algorithm.needs.shows_right else None,
    )
    return collected.with_batch(batch)


def learnt(
    algorithm: Algorithm, head: HeadPath, layout: RowLayout, scale: float = 1.0, *, varlen: bool = False, **model: Any
) -> tuple[torch.Tensor, dict[str, float], dict[str, torch.Tensor]]:
    """The loss, the metrics and the gradients of a step, whose loss is scaled after it was made."""
    policy, tokenizer = make_model(**model)
    accelerator, size = Accelerator(cpu=True), len(tokenizer)
    head, layout = usable_head(policy, head, size), usable_layout(policy, layout, size)
    reference = Reference(policy) if algorithm.needs.reference else None
    if reference is not None:
        reference.place(accelerator, None)
    teacher = None
    if algorithm.needs.given_teacher:
        rows, wide = policy.lm_head.weight.shape[0], make_teacher()
        teacher = Teacher(wide, head=usable_head(wide, head, size), rows=rows)
        assert usable_layout(wide, layout, size) == layout
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in policy.parameters():
            one.add_(0.02 * torch.randn(one.shape, generator=draw, dtype=one.dtype) * one.requires_grad)
    scorer, laid_out = Scorer(head, 0.8), make_layout(layout, pad_id=0, varlen=varlen)
    options: Any = {"layout": laid_out, "rows": None, "tokens": 150, "teacher": teacher}
    learner = Learner(algorithm, reference, accelerator, scorer=scorer, **options)
    opened = learner.open(policy, collection(algorithm, policy, tokenizer))
    step, total, metrics = learner.step(opened, 0, 0.3), torch.zeros((), dtype=torch.float64), dict[str, float]()
    for micro in step.micro:
        output = learner.loss(policy, step, micro).output
        (scale * output.loss).backward()
        total += output.loss.detach()
        for name, value in output.metrics.items():
            before = metrics.get(name, 0.0)
            metrics[name] = max(before, float(value)) if name.endswith("/max") else before + float(value)
    return total, metrics, {name: p.grad / scale for name, p in policy.named_parameters() if p.grad is not None}


@cache
def plainly(name: str, head: HeadPath, model: str = "full") -> Any:
    """What a step in rows of their own gives, with which several are compared. Head "whole": the model's own logits under
    autograd.
    """
    return learnt(ALGORITHMS[name], head, "padded", **MODELS[model])


def assert_equal(found: Any, expected: Any) -> None:
    (loss, metrics, gradients), (plain_loss, plain_metrics, plain_gradients) = found, expected
    torch.testing.assert_close(loss, plain_loss, rtol=1e-11, atol=1e-12)
    assert metrics == pytest.approx(plain_metrics, rel=1e-9, abs=1e-11)
    assert gradients.keys() == plain_gradients.keys()
    largest = max(float(one.abs().max()) for one in plain_gradients.values())
    assert largest > 1e-6
    for name, one in gradients.items():
        assert (one - plain_gradients[name]).abs().max() < 1e-11 * largest, name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_fast_path_learns_what_the_plain_one_learns(name: str) -> None:
    algorithm = ALGORITHMS[name]
    by_matrices = algorithm.needs.compares_distributions  # whole distributions are
    assert_equal(learnt(algorithm, *FAST), plainly(name, "two_pass" if by_matrices else "whole"))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["grpo", "dpo", "asft"])
def test_it_does_so_for_every_kind_of_model_and_a_scaled_loss(name: str, model: str) -> None:
    assert_equal(learnt(ALGORITHMS[name], *FAST, scale=-2.5, **MODELS[model]), plainly(name, "two_pass", model))


@pytest.mark.parametrize("head", ["one_pass", "two_pass", "whole"])
@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("name", ["grpo", "dpo"])
def test_switches_combine(name: str, head: HeadPath, layout: RowLayout) -> None:
    assert_equal(learnt(ALGORITHMS[name], head, layout), plainly(name, "whole"))


@pytest.mark.parametrize("layout", ["shared", "packed"])
@pytest.mark.parametrize("name", ["grpo", "dpo", "asft"])
def test_the_kernel_for_stretches_of_any_length_learns_the_same(name: str, layout: RowLayout) -> None:
    """By its formulas; in a model whose heads are grouped."""
    with flash.kernels():
        found = learnt(ALGORITHMS[name], "two_pass", layout, varlen=True, **MODELS["grouped heads"])
    assert_equal(found, plainly(name, "two_pass", "grouped heads"))


@pytest.mark.parametrize("name", ["grpo", "dpo"])
def test_shared_prompts_of_float32_weights_run_under_autocast_as_cuda_runs_them(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's bias in place of a mask takes the call before autocast does: queries and keys, which rotary embeddings make
    float32, and values, which are bfloat16, must be of one dtype by then."""
    options: dict[str, Any] = {"dtype": "float32", "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    biased = list[torch.dtype]()

    def bias(queries: int, keys: int, device: torch.device) -> Any:
        biased.append(torch.get_autocast_dtype(device.type))
        return causal_lower_right(queries, keys)

    with torch.autocast("cpu", torch.bfloat16):
        loss, _, gradients = learnt(ALGORITHMS[name], *FAST, **options)
        monkeypatch.setattr("posttrain.model.layout.blocks._lower_right", bias)
        forced, _, forced_gradients = learnt(ALGORITHMS[name], *FAST, **options)
    assert biased and not caplog.text  # no trial fell back to padded rows
    torch.testing.assert_close(forced, loss, rtol=0.02, atol=1e-3)
    ours, theirs = (torch.cat([one.flatten() for one in of.values()]) for of in (forced_gradients, gradients))
    assert torch.cosine_similarity(ours, theirs, 0) > 0.99


def test_the_samplers_log_probs_are_taken_to_the_last_bit_and_nothing_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, tokenizer = make_model()
    algorithm = build_algorithm("grpo", updates=2, old="sampler", kl_coef=0.0)
    scorer, accelerator = Scorer("one_pass"), Accelerator(cpu=True)
    learner = Learner(algorithm, None, accelerator, scorer=scorer, layout=Padded(0), rows=None, tokens=None)
    monkeypatch.setattr(Learner, "_policy", lambda *_, **__: pytest.fail("a forward pass was made"))
    collected = collection(algorithm, policy, tokenizer)
    drawn = collected.batch.replace(old_logp=None)
    opened = learner.open(policy, collected.with_batch(drawn)).batch
    assert drawn.behavior_logp is not None and opened.old_logp is not None
    assert torch.equal(opened.old_logp, drawn.behavior_logp)


@pytest.mark.parametrize(("steps", "made"), [(4, 4), (12, 1)], ids=["read once", "read again"])
def test_the_reference_scores_a_data_set_that_is_read_again_once(
    steps: int, made: int, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 pairs, six a step: at each step of a single pass, or all together before the first; to the same parameters."""
    calls, honest = list[int](), Reference.logp

    def counted(self: Reference, inputs: Any, loss_mask: Any, scorer: Scorer) -> torch.Tensor:
        calls.append(1)
        return honest(self, inputs, loss_mask, scorer)

    monkeypatch.setattr(Reference, "logp", counted)
    kept = make_trainer("dpo", max_steps=steps, micro_rows=6)
    calls.clear()  # of the proof that the log-ratio is 0
    monkeypatch.setattr(kept._learner, "_bounds", {"rows": None, "tokens": None})
    kept.train()
    assert len(calls) == made
    monkeypatch.setattr(Learner, "keep_reference", lambda self, examples: None)
    anew = make_trainer("dpo", max_steps=steps, micro_rows=6, output="anew")
    calls.clear()
    anew.train()
    assert len(calls) == steps
    assert (parameters(kept.model) - parameters(anew.model)).abs().max() < 1e-12


def test_the_fast_path_is_in_effect_and_reads_less(make_trainer: MakeTrainer) -> None:
    assert make_trainer("sft")._learner._one_pass
    fast, plain = make_trainer("dpo"), make_trainer("dpo", trainer_options={"layout": "padded"}, output="plain")
    assert (fast._learner._layout, plain._learner._layout) == (Packed(share=True), Padded(0))
    read = list[int]()
    for trainer in (fast, plain):
        model: Any = trainer.model
        rows: Any = trainer.train_dataset
        step = trainer._learner.step(trainer._learner.open(model, collect_demonstrations(rows[:8], progress=0.0)), 0, 0.0)
        read.append(sum(trainer._learner._read(step.collection, micro) for micro in step.micro))
    assert read[0] < 0.7 * read[1]
