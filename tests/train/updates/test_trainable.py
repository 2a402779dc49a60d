"""What is trained: by names, in halves, in turns; what is not trained stays to the last bit, and the optimizer forgets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.settings.model import Adapter
from posttrain.train.updates._chosen import shapes_of
from posttrain.train.updates.trainable import TRAINABLE, TrainableConfig
from posttrain.train.updates.trainable._trainable import layers_of, outside
from posttrain.train.updates.trainable.blocks import Blocks
from posttrain.train.updates.trainable.half import Half
from posttrain.train.updates.trainable.lisa import Lisa
from posttrain.train.updates.trainable.match import Match
from posttrain.train.updates.trainable.unfreeze import Unfreeze
from tiny import make_model
from train.updates.test_updates import trainer

MakeTrainer = Callable[..., PostTrainer]
SHAPES = shapes_of(make_model(num_hidden_layers=6)[0])
LAYERS = layers_of(SHAPES)
EMBEDDINGS = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


def numbers(chosen: set[str]) -> set[int]:
    """The layers that some of it is of."""
    return {number for number, names in enumerate(LAYERS) if chosen & {*names}}


def test_names_fall_into_layers_and_what_is_in_none() -> None:
    assert len(LAYERS) == 6 and outside(SHAPES) == EMBEDDINGS
    assert sum(map(len, LAYERS)) + len(EMBEDDINGS) == len(SHAPES)
    with pytest.raises(ValueError, match="in no numbered layers"):
        layers_of(["a.weight"])


def test_half_is_two_attention_matrices_and_one_or_two_of_the_mlp_of_each_layer() -> None:
    chosen = Half().chosen(SHAPES, 0, 1)
    assert chosen >= EMBEDDINGS and chosen == Half().chosen(SHAPES, 0, 7) != Half().chosen(SHAPES, 1, 1)
    assert chosen != Half(draw=1).chosen(SHAPES, 0, 1)
    mlp, norms = Counter[int](), 0
    for number, names in enumerate(LAYERS):
        weights = [name for name in names if name in chosen and name.endswith("weight")]
        assert sum("self_attn" in name for name in weights) == 2
        mlp[sum("mlp" in name for name in weights)] += 1
        norms += sum("norm" in name for name in weights)
        for name in names:  # a bias goes with its matrix
            if name.endswith("bias"):
                assert (name in chosen) == (name.removesuffix("bias") + "weight" in chosen), number
    assert mlp == {1: 3, 2: 3} and norms == 6


def test_layers_are_drawn_anew_each_turn_and_each_as_often() -> None:
    rule, drawn = Lisa(layers=2, every=5), Counter[int]()
    for turn in range(600):
        chosen = {frozenset(rule.chosen(SHAPES, 3, 5 * turn + step)) for step in (1, 3, 5)}
        assert len(chosen) == 1
        [one] = chosen
        assert one >= EMBEDDINGS and len(numbers({*one})) == 2
        drawn.update(numbers({*one}))
    assert all(abs(count - 200) < 4 * (600 * (1 / 3) * (2 / 3)) ** 0.5 for count in drawn.values()) and len(drawn) == 6
    with pytest.raises(ValueError, match="layers: 7, and the model has 6"):
        Lisa(layers=7).chosen(SHAPES, 0, 1)


def test_blocks_follow_one_another() -> None:
    def order(steps: int, **options: Any) -> list[set[int]]:
        return [numbers(Blocks(every=2, **options).chosen(SHAPES, 0, step)) for step in range(1, steps + 1, 2)]

    assert order(14, order="ascending") == [{0}, {1}, {2}, {3}, {4}, {5}, {0}]
    assert order(12, order="descending") == [{5}, {4}, {3}, {2}, {1}, {0}]
    twice = order(24)
    assert (
        sorted(map(sorted, twice[:6])) == sorted(map(sorted, twice[6:])) == [[i] for i in range(6)] and twice[:6] != twice[6:]
    )
    assert Blocks(every=1, order="ascending", outside=True).chosen(SHAPES, 0, 7) == EMBEDDINGS


def test_from_the_last_layer_to_the_first_one_more_is_trained() -> None:
    found = [Unfreeze(every=10).chosen(SHAPES, 0, step) for step in (1, 10, 11, 51, 500)]
    assert [numbers(chosen) for chosen in found] == [{5}, {5}, {4, 5}, {*range(6)}, {*range(6)}]
    assert found[0] >= EMBEDDINGS - {"model.embed_tokens.weight"} and "model.embed_tokens.weight" not in found[0]
    assert found[3] == {*SHAPES}


CASES: dict[str, TrainableConfig] = {
    "match": Match(pattern="mlp|model.norm"),
    "half": Half(),
    "lisa": Lisa(layers=1, every=1),
    "blocks": Blocks(every=2, order="ascending"),
    "unfreeze": Unfreeze(every=2),
}


def test_all_rules_are_tested() -> None:
    assert [*CASES] == [rule.model_fields["rule"].default for rule in TRAINABLE]


@pytest.mark.parametrize(("name", "algorithm"), [*((name, "sft") for name in CASES), ("lisa", "grpo")])
def test_what_is_not_trained_stays_and_the_optimizer_has_nothing_of_it(
    name: str, algorithm: str, make_trainer: MakeTrainer
) -> None:
    rule, seen = CASES[name], dict[int, dict[str, torch.Tensor]]()
    one = make_trainer(
        algorithm,
        model=make_model(),
        options={"rollouts": 4, "kl_coef": 0.1} if algorithm == "grpo" else {},
        rows_per_step=8,
        optim="adamw_torch",
        learning_rate=1e-2,
        trainer_options={"trainable": rule},
    )
    model: Any = one.model
    shapes = shapes_of(model)

    class Seen:
        def on_step(self, step: int, metrics: dict[str, float]) -> None:
            seen[step] = {name: own.detach().clone() for name, own in model.named_parameters()}
            optimizer: Any = one.optimizer
            kept = {name for name, own in model.named_parameters() if own in optimizer.optimizer.state}
            assert kept == rule.chosen(shapes, one.args.seed, step)

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    one.listeners.append(Seen())  # type: ignore[arg-type]
    seen[0] = {name: own.detach().clone() for name, own in model.named_parameters()}
    one.train()
    for step in range(1, 5):
        moved = {name for name, own in seen[step].items() if not torch.equal(own, seen[step - 1][name])}
        assert moved == rule.chosen(shapes, one.args.seed, step), step
    takes = {name for name, own in model.named_parameters() if own.requires_grad}
    assert takes == ({*shapes} if rule.in_turns else moved)


def test_what_fits_nothing_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match=r"pattern: nothing is found in no parameter; they are called model.embed_tokens"):
        trainer(make_trainer, trainable=Match(pattern="nothing"))
    with pytest.raises(SetupError, match="of this one an adapter is trained"):
        trainer(make_trainer, trainable=Half(), adapter=Adapter(r=2))
    with pytest.raises(ValueError, match="no regular expression"):
        Match(pattern="(")
