"""TRL 1.16's own trainers give every parameter of a model the same gradient as our estimator.

The loss code that runs is TRL's. Ours sees the log-probs of the same model's plain logits. Where two definitions
differ, the settings under which they agree are chosen; the differences are:

- SFT's tokens, and GRPO's for `dapo` and `cispo`, are counted over the whole optimizer step, as ours. `grpo` and
  `dr_grpo` are means of micro-batches, and count rows without a loss token: the same where micro-batches have equally
  many rows, and each row a loss token. `bnpo` and the entropy bonus are means over the tokens of a micro-batch: the
  same where there is one.
- DPO's `sigmoid` does not read label_smoothing. TRL's smoothed DPO is `aot`, which also sorts the margins of a
  micro-batch: the same where it has one pair.
- `ipo` takes means over tokens: our `average="token"`.
- `cispo`'s epsilon_high bounds the ratio itself: it is 1 + our clip_high.
- `delta` caps the ratio for either sign of the advantage: the same as our `dual_clip` above 1 + epsilon_high.
- `use_bias_correction_kl`, TRL's default, multiplies the k3 term by the ratio, gradient and all: our `kl: unbiased`, and
  off elsewhere.
- The mask of stale rows compares with the sampler, which is here the policy of the collection.
- DAPO's dynamic sampling is not part of TRL's loss, nor of ours where advantages are given.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from posttrain import Batch, build_algorithm, policy_gradient_loss
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.parts.credit.tokens import most_uncertain
from posttrain.estimator.parts.select import everything

trl: Any = pytest.importorskip("trl")
trl_utils: Any = pytest.importorskip("trl.trainer.utils")
trl_gmpo: Any = pytest.importorskip("trl.experimental.gmpo")

VOCABULARY = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, 48)}}
MAX_TOKENS = 12

FUSED_HEAD = 5e-6
"""TRL's fused head computes log-probs and their gradient in float32, whatever the model's dtype. Measured: 1e-6."""
EXACT = 1e-12
"""Measured: 1e-15."""
FLOAT32_LABEL = 5e-6
"""TRL takes the logarithms of EXO's label in float32, whatever the model's dtype."""


class Float64Head:
    """What TRL's fused kernel returns, by plain torch operations in the model's own dtype."""

    @staticmethod
    def apply(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, *_: Any
    ) -> tuple[Tensor | None, ...]:
        logits = F.linear(hidden, weight, bias) / temperature
        logp = logits.log_softmax(-1)
        target = logp.gather(-1, targets[:, None])[:, 0]
        entropy = -(logp.exp() * logp).sum(-1)
        return target, entropy, (2 * logp.detach()).logsumexp(-1), logits.mean(-1).detach(), logits.argmax(-1) == targets


@pytest.fixture(params=["fused_head", "float64_head"])
def rtol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """TRL as it is, to float32; and with its output layer in float64, so that the loss definitions agree to 1e-12."""
    if request.param == "fused_head":
        return FUSED_HEAD
    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", Float64Head)
    return EXACT


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    split = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<pad>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=split, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="module")
def reference_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference")
    tiny_model(seed=1).save_pretrained(path)
    return path


def tiny_model(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        attention_dropout=0.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return Qwen2ForCausalLM(config).double().train()


def settings(path: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of every trainer: CPU, no mixed precision, nothing reported."""
    common = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "disable_tqdm": True}
    return {"output_dir": str(path), "per_device_train_batch_size": 3} | common | changes


def text_dataset(rows: int, *columns: str) -> Dataset:
    generator = torch.Generator().manual_seed(2)

    def text(low: int, high: int) -> str:
        count = int(torch.randint(low, high + 1, (), generator=generator))
        return "".join(f" w{i}" for i in torch.randint(2, len(VOCABULARY), (count,), generator=generator).tolist())

    texts = {name: [text(2, MAX_TOKENS - 1) for _ in range(rows)] for name in columns}
    return Dataset.from_dict({"prompt": [text(2, 5) for _ in range(rows)]} | texts)


@dataclass(frozen=True)
class Rows:
    """What a forward pass sees, [B, S], and which of its tokens are the completions, at most `width` in a row."""

    ids: Tensor
    attention: Tensor
    completion: Tensor
    width: int

    @property
    def loss_mask(self) -> Tensor:
        return torch.arange(self.width) < self.completion.sum(-1, keepdim=True)

    def forward(self, model: Qwen2ForCausalLM) -> tuple[Tensor, Tensor]:
        """Log-probs of the completions' tokens and entropies, in the layout of `Batch`, from the plain logits."""
        logp = model(input_ids=self.ids, attention_mask=self.attention, use_cache=False).logits.log_softmax(-1)[:, :-1]
        entropy = -(logp.exp() * logp).sum(-1)
        token = logp.gather(-1, self.ids[:, 1:, None])[..., 0]  # column s - 1 holds token s
        start = self.completion.int().argmax(-1, keepdim=True)
        index = (start - 1 + torch.arange(self.width)).clamp(max=token.shape[1] - 1)
        return token.gather(-1, index), entropy.gather(-1, index)

    @torch.no_grad()
    def collision(self, model: Qwen2ForCausalLM) -> Tensor:
        """log sum_v p(v)^2 where `forward` has log-probs."""
        logp = model(input_ids=self.ids, attention_mask=self.attention, use_cache=False).logits.log_softmax(-1)[:, :-1]
        start = self.completion.int().argmax(-1, keepdim=True)
        index = (start - 1 + torch.arange(self.width)).clamp(max=logp.shape[1] - 1)
        return (2 * logp).logsumexp(-1).gather(-1, index)


Gradients = dict[str, Tensor]


def their_step(trainer: Any, inputs: Sequence[Any], items: Tensor | None = None) -> tuple[float, Gradients]:
    """TRL's optimizer step without the optimizer: forward, loss, divisions and backward of each micro-batch."""
    trainer.current_gradient_accumulation_steps = len(inputs)  # as the training loop sets it
    loss = sum(trainer.training_step(trainer.model, each, items).item() for each in inputs)
    return loss, taken_gradients(trainer.model)


def our_step(
    algorithm: Algorithm, model: Qwen2ForCausalLM, micro_batches: Sequence[tuple[Rows, Batch]]
) -> tuple[dict[str, float], Gradients]:
    """Ours: the denominators of the whole step, then loss and backward of each micro-batch, whose metrics add up."""
    shares = [algorithm.counts(batch) for _, batch in micro_batches]
    counts = {name: torch.stack([share[name] for share in shares]).sum() for name in shares[0]}
    metrics: dict[str, float] = defaultdict(float)
    for rows, batch in micro_batches:
        logp, entropy = rows.forward(model)
        output = policy_gradient_loss(algorithm, logp, batch, entropy=entropy, counts=counts)
        output.loss.backward()
        for name, value in output.metrics.items():
            metrics[name] += value.item()
    return metrics, taken_gradients(model)


def taken_gradients(model: Qwen2ForCausalLM) -> Gradients:
    gradients: Gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad
    model.zero_grad(set_to_none=True)
    return gradients


def assert_same(ours: Gradients, theirs: Gradients, rtol: float) -> None:
    """Every parameter's gradient, relative to the largest of that parameter."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        largest = gradient.abs().max()
        assert largest > 0, name
        assert (ours[name] - gradient).abs().max() <= rtol * largest, name


@pytest.mark.parametrize(("loss_type", "name"), [("nll", "sft"), ("dft", "dft")])
def test_sft(loss_type: str, name: str, rtol: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = trl.SFTTrainer(
        tiny_model(),
        trl.SFTConfig(**settings(tmp_path, loss_type=loss_type)),
        train_dataset=text_dataset(6, "completion"),
        processing_class=tokenizer,
    )
    inputs, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, torch.device("cpu"))
    micro_batches = []
    for each in inputs:
        rows = Rows(each["input_ids"], each["attention_mask"], each["labels"] != -100, width=MAX_TOKENS)
        micro_batches.append((rows, Batch(loss_mask=rows.loss_mask)))
    loss, theirs = their_step(trainer, inputs, items)
    metrics, ours = our_step(build_algorithm(name), trainer.model, micro_batches)
    assert_same(ours, theirs, rtol)
    if loss_type == "nll":
        assert metrics["nll"] == pytest.approx(loss, rel=rtol)


def dpo_trainer(tokenizer: PreTrainedTokenizerFast, reference: Qwen2ForCausalLM, path: Path, **changes: Any) -> Any:
    return trl.DPOTrainer(
        tiny_model(),
        reference,
        trl.DPOConfig(**settings(path, **changes)),
        train_dataset=text_dataset(6, "chosen", "rejected"),
        processing_class=tokenizer,
    )


def pairs_of(inputs: Sequence[Mapping[str, Tensor]], reference: Qwen2ForCausalLM) -> list[tuple[Rows, Batch]]:
    """TRL's rows are all the chosen ones, then all the rejected ones."""
    micro_batches = []
    for each in inputs:
        pairs = torch.arange(len(each["input_ids"])).view(2, -1).T.flatten()
        ids, attention, completion = (each[key][pairs] for key in ("input_ids", "attention_mask", "completion_mask"))
        rows = Rows(ids, attention, completion, width=MAX_TOKENS)
        with torch.no_grad():
            ref_logp, _ = rows.forward(reference)
        chosen = torch.arange(len(pairs)) % 2 == 0
        micro_batches.append((rows, Batch(loss_mask=rows.loss_mask, ref_logp=ref_logp, chosen=chosen)))
    return micro_batches


SMOOTHED = {"label_smoothing": 0.1}
PAIRS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("sigmoid", {}, "dpo", {}),
    ("sigmoid", SMOOTHED, "dpo", {}),
    ("ipo", {}, "ipo", {"average": "token"}),
    ("robust", SMOOTHED, "robust_dpo", {"flipped": 0.1}),
    ("hinge", {}, "hinge_dpo", {}),
    ("exo_pair", SMOOTHED, "exo", SMOOTHED),
    ("nca_pair", {}, "nca", {}),
    ("bco_pair", {}, "bco_pair", {}),
    ("sppo_hard", {}, "sppo", {}),
    ("apo_zero", {}, "apo_zero", {}),
    ("apo_down", {}, "apo_down", {}),
    ("discopop", {}, "discopop", {}),
    ("sigmoid_norm", {}, "ln_dpo", {}),
    ("sigmoid", {"ld_alpha": 0.3}, "ld_dpo", {"alpha": 0.3}),
    ("sigmoid", {"f_divergence_type": "forward_kl"}, "f_dpo", {}),
    ("sigmoid", {"f_divergence_type": "js_divergence"}, "f_dpo", {"divergence": "js"}),
]
"""TRL's loss and what else is set, our name and options. Beta is 0.05."""


def test_pairs(rtol: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """One trainer of TRL's, told one loss after the other: what it reads of them it reads at each step."""
    reference = tiny_model(seed=1)
    trainer = dpo_trainer(tokenizer, reference, tmp_path, beta=0.05)
    inputs = list(trainer.get_train_dataloader())
    micro_batches = pairs_of(inputs, reference)
    plain = {"label_smoothing": 0.0, "ld_alpha": None, "f_divergence_type": "reverse_kl"}
    losses = set()
    for loss_type, changes, name, options in PAIRS:
        trainer.loss_types = [loss_type]
        for attribute, value in (plain | changes).items():
            assert hasattr(trainer, attribute)
            setattr(trainer, attribute, value)
        loss, theirs = their_step(trainer, inputs)
        metrics, ours = our_step(build_algorithm(name, beta=0.05, **options), trainer.model, micro_batches)
        own = FLOAT32_LABEL if loss_type == "exo_pair" else rtol
        assert_same(ours, theirs, own)
        assert metrics[f"objective/{name}"] == pytest.approx(loss, rel=own)
        losses.add(loss)
    assert len(losses) == len(PAIRS) - 1  # DPO's does not read label_smoothing: all others were another loss each


def test_pairs_weighted_as_the_policy_would_write_them(
    rtol: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    reference = tiny_model(seed=1)
    trainer = dpo_trainer(tokenizer, reference, tmp_path, beta=0.05, use_weighting=True)
    inputs = list(trainer.get_train_dataloader())
    micro_batches = [
        (rows, batch.replace(collision=rows.collision(trainer.model))) for rows, batch in pairs_of(inputs, reference)
    ]
    loss, theirs = their_step(trainer, inputs)
    metrics, ours = our_step(build_algorithm("wpo", beta=0.05), trainer.model, micro_batches)
    assert_same(ours, theirs, rtol)
    assert metrics["objective/wpo"] == pytest.approx(loss, rel=rtol)


def test_dpo_of_a_smoothed_label(rtol: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """`aot`, which also sorts the margins of a micro-batch, is smoothed DPO where it has one pair."""
    reference = tiny_model(seed=1)
    one = {"loss_type": ["aot"], "label_smoothing": 0.1, "per_device_train_batch_size": 1}
    trainer = dpo_trainer(tokenizer, reference, tmp_path, beta=0.05, **one)
    inputs = list(trainer.get_train_dataloader())
    loss, theirs = their_step(trainer, inputs)
    algorithm = build_algorithm("dpo", beta=0.05, label_smoothing=0.1)
    metrics, ours = our_step(algorithm, trainer.model, pairs_of(inputs, reference))
    assert_same(ours, theirs, rtol)
    assert metrics["objective/dpo"] == pytest.approx(loss, rel=rtol)


def test_dpo_with_the_likelihood_of_what_is_chosen(rtol: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Its mean over tokens is a micro-batch's: the same where there is one."""
    reference = tiny_model(seed=1)
    both = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.4], "per_device_train_batch_size": 6}
    trainer = dpo_trainer(tokenizer, reference, tmp_path, beta=0.05, **both)
    inputs = list(trainer.get_train_dataloader())
    loss, theirs = their_step(trainer, inputs)
    algorithm = build_algorithm("rpo", beta=0.05, sft_coef=0.4, sft_average="token")
    metrics, ours = our_step(algorithm, trainer.model, pairs_of(inputs, reference))
    assert_same(ours, theirs, rtol)
    assert metrics["objective/rpo"] + 0.4 * metrics["nll"] == pytest.approx(loss, rel=rtol)


@pytest.mark.parametrize(
    ("theirs", "name", "options"),
    [
        ({"loss_type": "simpo", "simpo_gamma": 0.7}, "simpo", {"gamma": 0.7}),
        ({"loss_type": "simpo", "simpo_gamma": 0.7, "alpha": 0.25}, "alpha_po", {"gamma": 0.7}),
        ({"loss_type": "sigmoid"}, "cpo", {"sft_coef": 0.0}),
        ({"loss_type": "hinge"}, "slic", {"sft_coef": 0.0}),
        (None, "orpo", {"odds_coef": 0.05}),
    ],
    ids=["simpo", "alpha_po", "cpo", "slic", "orpo"],
)
def test_pairs_without_a_reference(theirs: dict[str, Any] | None, name: str, options: dict[str, Any]) -> None:
    """TRL's own functions of log-probs, as its trainers call them: their data and likelihood cover the prompt, ours do not.

    Its hinge has the margin 1/beta, and ORPO's odds are in float32.
    """
    trainer: Any = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    odds_trainer: Any = pytest.importorskip("trl.experimental.orpo").ORPOTrainer

    beta = 1.0 if name == "slic" else 0.05
    own = {"beta": beta, "alpha": 0.0, "label_smoothing": 0, "accelerator": SimpleNamespace(device=torch.device("cpu"))}
    asking = SimpleNamespace(**own | (theirs or {}))
    generator = torch.Generator().manual_seed(4)
    logp = -2 * torch.rand(6, 5, dtype=torch.float64, generator=generator) - 0.1
    mask = torch.arange(5) < torch.tensor([[5], [3], [2], [4], [1], [5]])
    logp.requires_grad_()
    sums = torch.where(mask, logp, 0.0).sum(-1)
    rewards = sums / mask.sum(-1) if name in ("simpo", "alpha_po", "orpo") else sums
    chosen, rejected = rewards[0::2], rewards[1::2]
    if theirs is None:
        value = -odds_trainer.odds_ratio_loss(asking, chosen, rejected)[0].mean()
    else:
        value = trainer.cpo_loss(asking, chosen, rejected)[0].mean()
    (expected,) = torch.autograd.grad(value, logp)
    algorithm = build_algorithm(name, **({} if name in ("slic", "orpo") else {"beta": beta}), **options)
    algorithm = dataclasses.replace(algorithm, terms=algorithm.terms[:1])  # the likelihood is the naive test's
    output = policy_gradient_loss(algorithm, logp, Batch(loss_mask=mask, chosen=torch.arange(6) % 2 == 0))
    (actual,) = torch.autograd.grad(output.loss, logp)
    torch.testing.assert_close(actual, expected, rtol=1e-5 if name == "orpo" else 1e-12, atol=0)
    torch.testing.assert_close(output.metrics[f"objective/{name}"].double(), value.detach().double(), rtol=1e-6, atol=0)


def test_triples(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """TRL's gold completion is our column `reference`; its mean over tokens is a micro-batch's, of which there is one."""
    theirs: Any = pytest.importorskip("trl.experimental.tpo")
    options = {"beta": 0.3, "loss_type": "tpo-l", "tpo_l_gamma": 0.5, "tpo_alpha": 0.4, "per_device_train_batch_size": 6}
    trainer = theirs.TPOTrainer(
        tiny_model(),
        theirs.TPOConfig(**settings(tmp_path, **options)),
        train_dataset=text_dataset(6, "chosen", "rejected", "reference"),
        processing_class=tokenizer,
    )
    [inputs] = list(trainer.get_train_dataloader())
    loss, gradients = their_step(trainer, [inputs])
    order = torch.arange(18).view(3, 6).T.flatten()
    rows = Rows(*(inputs[key][order] for key in ("input_ids", "attention_mask", "completion_mask")), width=MAX_TOKENS)
    batch = Batch(loss_mask=rows.loss_mask, chosen=torch.arange(18) % 3 == 0, unit=3)
    algorithm = build_algorithm("tpo", beta=0.3, average="token", gamma=0.5, sft_coef=0.4)
    metrics, ours = our_step(algorithm, trainer.model, [(rows, batch)])
    assert_same(ours, gradients, EXACT)
    assert metrics["objective/tpo"] + 0.4 * metrics["nll"] == pytest.approx(loss, rel=EXACT)


CLIP: dict[str, Any] = {"epsilon": 0.2, "epsilon_high": 0.28}
OUR_CLIP = {"clip_low": 0.2, "clip_high": 0.28, "updates": 2}
K3 = {"beta": 0.1, "use_bias_correction_kl": False}


@dataclass(frozen=True)
class Case:
    """TRL's settings and ours. `moved`: the policy is not that of the collection; `value`: TRL's loss is our metric."""

    theirs: dict[str, Any]
    name: str
    ours: dict[str, Any]
    moved: bool = True
    micro_batches: int = 2
    value: bool = False


def grpo_cases() -> dict[str, Case]:
    grpo, dr_grpo, dapo, bnpo, cispo = ({"loss_type": name} for name in ("grpo", "dr_grpo", "dapo", "bnpo", "cispo"))
    by_rows = {"importance_sampling_level": "sequence"}
    gates = {"sapo_temperature_pos": 2.0, "sapo_temperature_neg": 3.0}
    our_gates = {"temperature_positive": 2.0, "temperature_negative": 3.0}
    gspo = grpo | by_rows
    no_kl, kl, constant = {"kl_coef": 0.0}, {"kl_coef": 0.1}, {"max_tokens": MAX_TOKENS}
    return {
        "grpo_first_update": Case(grpo, "grpo", no_kl, moved=False),
        "grpo_first_update_k3": Case(grpo | K3, "grpo", kl, moved=False),
        "grpo": Case(grpo | CLIP, "grpo", OUR_CLIP | no_kl, value=True),
        "grpo_k3": Case(grpo | CLIP | K3, "grpo", OUR_CLIP | kl),
        "grpo_delta": Case(grpo | CLIP | {"delta": 1.4}, "grpo", OUR_CLIP | no_kl | {"dual_clip": 1.4}),
        "dr_grpo": Case(dr_grpo | CLIP, "dr_grpo", OUR_CLIP | constant, value=True),
        "dr_grpo_k3": Case(dr_grpo | CLIP | K3, "dr_grpo", OUR_CLIP | constant | kl),
        "dapo": Case(dapo | CLIP, "dapo", OUR_CLIP, value=True),
        "dapo_k3": Case(dapo | CLIP | K3, "dapo", OUR_CLIP | kl),
        "dapo_entropy": Case(
            dapo | CLIP | {"entropy_coef": 0.05}, "dapo", OUR_CLIP | {"entropy_coef": 0.05}, micro_batches=1
        ),
        "bnpo_is_dapo": Case(bnpo | CLIP, "dapo", OUR_CLIP, micro_batches=1, value=True),
        "cispo": Case(cispo | {"epsilon_high": 1.28}, "cispo", {"clip_high": 0.28, "updates": 2}),
        "gspo": Case(gspo | CLIP, "gspo", OUR_CLIP),
        "gspo_k3": Case(gspo | CLIP | K3, "gspo", OUR_CLIP | kl),
        "luspo": Case({"loss_type": "luspo"} | by_rows | CLIP, "gspo", OUR_CLIP | {"average": "sequence_sum"}),
        "sapo": Case({"loss_type": "sapo"} | gates, "sapo", our_gates | {"updates": 2}),
        "vespo": Case({"loss_type": "vespo"}, "vespo", {"updates": 2}),
        "gmpo": Case({"epsilon": 0.4, "epsilon_high": 0.3}, "gmpo", {"updates": 2, "clip_high": 0.3}),
        "dapo_unbiased_kl": Case(dapo | CLIP | {"beta": 0.1}, "dapo", OUR_CLIP | kl | {"kl": "unbiased"}),
        "dapo_off_policy_mask": Case(
            dapo | CLIP | {"off_policy_mask_threshold": 0.3}, "dapo", OUR_CLIP | {"off_policy_mask": 0.3}
        ),
    }


@pytest.mark.parametrize("case", grpo_cases().values(), ids=grpo_cases())
def test_grpo(case: Case, rtol: float, tokenizer: PreTrainedTokenizerFast, reference_path: Path, tmp_path: Path) -> None:
    kind = GMPO if case.name == "gmpo" else GRPO
    trainer = grpo_trainer(tokenizer, reference_path, tmp_path, case.micro_batches, kind, **case.theirs)
    inputs = trl_utils.split_tensor_dict(hand_made_collection(trainer, case.moved), case.micro_batches)
    # In its second pass over a collection TRL takes what it has buffered.
    trainer._buffered_inputs, trainer._step = inputs, case.micro_batches
    loss, theirs = their_step(trainer, inputs)
    algorithm = build_algorithm(case.name, **case.ours)
    metrics, ours = our_step(algorithm, trainer.model, [rows_and_batch(each) for each in inputs])
    assert_same(ours, theirs, rtol)
    if case.value:
        assert metrics["objective/clipped"] == pytest.approx(loss, rel=rtol)
    if case.moved:
        counted = ["cispo_clip_ratio"] if case.name == "cispo" else ["clip_ratio/low_mean", "clip_ratio/high_mean"]
        counted = [] if case.name in ("sapo", "vespo") else counted
        assert all(0 < share < 1 for name in counted for share in trainer._metrics["train"][name])
        assert case.name in ("cispo", "sapo", "vespo") or 0 < metrics["mask/dropped_fraction"] < 1


def test_top_entropy(rtol: float, tokenizer: PreTrainedTokenizerFast, reference_path: Path, tmp_path: Path) -> None:
    """In the first update, where TRL's entropies are those of the policy that collected, and in one micro-batch."""
    trainer = grpo_trainer(tokenizer, reference_path, tmp_path, 1, GRPO, loss_type="dapo", top_entropy_quantile=0.2, **CLIP)
    inputs = [hand_made_collection(trainer, moved=False)]
    trainer._buffered_inputs, trainer._step = inputs, 1
    _, theirs = their_step(trainer, inputs)
    rows, batch = rows_and_batch(inputs[0])
    with torch.no_grad():
        _, entropy = rows.forward(trainer.model)
    undecided = most_uncertain(batch.replace(entropy=entropy), keep=0.2, among=everything)
    _, ours = our_step(build_algorithm("top_entropy"), trainer.model, [(rows, undecided)])
    assert_same(ours, theirs, rtol)


GRPO: tuple[Any, Any] = (trl.GRPOTrainer, trl.GRPOConfig)
GMPO: tuple[Any, Any] = (trl_gmpo.GMPOTrainer, trl_gmpo.GMPOConfig)


def grpo_trainer(
    tokenizer: PreTrainedTokenizerFast,
    reference: Path,
    path: Path,
    micro_batches: int,
    kind: tuple[Any, Any] = GRPO,
    **changes: Any,
) -> Any:
    """For two questions of four answers each, and two passes over them."""
    model = tiny_model()
    model.config._name_or_path = str(reference)  # where TRL loads the reference model from
    trainer, config_of = kind
    config = config_of(
        **settings(path, gradient_accumulation_steps=micro_batches, per_device_train_batch_size=8 // micro_batches),
        num_generations=4,
        num_iterations=2,
        max_completion_length=MAX_TOKENS,
        **changes,
    )
    questions = text_dataset(2)
    return trainer(model, sum_modulo_seven, config, train_dataset=questions, processing_class=tokenizer)


def sum_modulo_seven(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


def hand_made_collection(trainer: Any, moved: bool) -> dict[str, Tensor]:
    """What TRL's `_generate_and_score_completions` returns, with advantages and log-probs in float64.

    Prompts are padded on the left, completions on the right; `tool_mask` takes two tokens out of the loss. Of each four
    rows, the first leaves the clip's region above, the second below, the third stays, the fourth is for the dual clip.
    """
    generator = torch.Generator().manual_seed(3)
    prompt_mask = (torch.arange(5) >= torch.tensor([[0], [2], [1], [3], [0], [3], [2], [1]])).long()
    completion_mask = (torch.arange(9) < torch.tensor([[9], [2], [5], [7], [3], [9], [8], [4]])).long()
    tool_mask = torch.ones_like(completion_mask)
    tool_mask[0, 2:4] = 0
    inputs = {
        "prompt_ids": prompt_mask * torch.randint(2, len(VOCABULARY), prompt_mask.shape, generator=generator),
        "prompt_mask": prompt_mask,
        "completion_ids": completion_mask * torch.randint(2, len(VOCABULARY), tool_mask.shape, generator=generator),
        "completion_mask": completion_mask,
        "tool_mask": tool_mask,
        "advantages": torch.tensor([1.1, -0.7, 0.4, -1.3, 0.8, -1.6, 0.3, -0.2], dtype=torch.float64),
        "num_items_in_batch": (completion_mask * tool_mask).sum(),
    }
    rows, _ = rows_and_batch(inputs)
    with torch.no_grad():
        if moved:
            logp, _ = rows.forward(trainer.model)
            shift = torch.tensor([0.5, -0.5, 0.0, 0.6] * 2, dtype=torch.float64)[:, None]
            noise = 0.2 * torch.randn(logp.shape, generator=generator, dtype=torch.float64)
            inputs["old_per_token_logps"] = logp - shift + noise
        if trainer.beta:
            inputs["ref_per_token_logps"], _ = rows.forward(trainer.ref_model)
    return inputs


def rows_and_batch(inputs: Mapping[str, Tensor]) -> tuple[Rows, Batch]:
    """TRL's inputs as ours."""
    prompt, completion = inputs["prompt_mask"], inputs["completion_mask"]
    rows = Rows(
        ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        attention=torch.cat([prompt, completion], dim=1),
        completion=torch.cat([torch.zeros_like(prompt), completion], dim=1),
        width=completion.shape[1],
    )
    batch = Batch(
        loss_mask=rows.loss_mask & inputs.get("tool_mask", completion).bool(),
        old_logp=inputs.get("old_per_token_logps"),
        behavior_logp=inputs.get("old_per_token_logps"),
        ref_logp=inputs.get("ref_per_token_logps"),
        advantage=inputs["advantages"][:, None].expand(completion.shape),
    )
    return rows, batch


@pytest.mark.parametrize(
    ("scale_rewards", "name", "options"),
    [("group", "grpo", {}), ("none", "dr_grpo", {"max_tokens": MAX_TOKENS})],
)
def test_rollouts_of_trl(
    scale_rewards: str,
    name: str,
    options: dict[str, Any],
    tokenizer: PreTrainedTokenizerFast,
    reference_path: Path,
    tmp_path: Path,
) -> None:
    """TRL's whole path, from its generation to the second update: of it we take the tokens and nothing else.

    Its rewards, advantages, old and reference log-probs are float32, hence the tolerance.
    """
    changes: dict[str, Any] = {"loss_type": name, "scale_rewards": scale_rewards} | CLIP | K3
    trainer = grpo_trainer(tokenizer, reference_path, tmp_path, 2, **changes)
    answers = [trainer.train_dataset[question] for question in (0, 0, 0, 0, 1, 1, 1, 1)]
    their_step(trainer, [answers, answers])
    inputs = trainer._buffered_inputs
    collected = {key: torch.cat([each[key] for each in inputs]) for key, value in inputs[0].items() if value.dim()}
    rows, batch = rows_and_batch(collected)
    with torch.no_grad():
        old_logp, ref_logp = rows.forward(trainer.model)[0], rows.forward(trainer.ref_model)[0]
        for parameter in trainer.model.parameters():  # an optimizer's step
            parameter += 0.02 * torch.randn_like(parameter)
    ids = [row[kept.bool()].tolist() for row, kept in zip(rows.ids, rows.completion, strict=True)]
    algorithm = build_algorithm(name, kl_coef=0.1, **OUR_CLIP, **options)
    batch = algorithm.prepare(
        Batch(
            loss_mask=batch.loss_mask,
            old_logp=old_logp,
            ref_logp=ref_logp,
            group=collected["prompt_ids"].unique(dim=0, return_inverse=True)[1],
            reward=torch.tensor(sum_modulo_seven(ids), dtype=torch.float64),
        )
    )
    _, theirs = their_step(trainer, [answers, answers])
    halves = [(rows_and_batch(each)[0], batch.take(range(4 * i, 4 * i + 4))) for i, each in enumerate(inputs)]
    metrics, ours = our_step(algorithm, trainer.model, halves)
    assert_same(ours, theirs, FUSED_HEAD)
    assert 0 < metrics["mask/dropped_fraction"] < 1
