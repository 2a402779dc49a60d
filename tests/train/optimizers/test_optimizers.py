"""Optimizers by name: what each is proved by, that every one goes on to the last bit, and rates of parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from posttrain import PostTrainer
from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.training import TrainingConfig
from posttrain.settings.doors.kinds import name_of
from posttrain.settings.faults import faults
from posttrain.settings.training import LayerRates, MatchedRates, ParameterRule
from posttrain.train.optimizers import KIND, OPTIMIZERS, OptimizerConfig, built_optimizer
from posttrain.train.optimizers._adopt import Adopt
from posttrain.train.optimizers._groups import Rates, grouped, rates_of
from posttrain.train.optimizers._optimizer import Trained
from posttrain.train.optimizers.adamw import AdamW
from posttrain.train.optimizers.function import FunctionOptimizer
from posttrain.train.optimizers.muon import Muon
from posttrain.train.optimizers.sgd import SGD
from recipes import recipe
from tiny import make_model

MakeTrainer = Callable[..., PostTrainer]
FREE = [config for config in OPTIMIZERS if config.package is None]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recipes of tests are written where they run."""
    monkeypatch.chdir(tmp_path)


def trained(*parameters: nn.Parameter, lr: float, model: Any = None) -> Trained:
    groups = [{"params": list(parameters), "lr": lr, "weight_decay": 0.0}]
    return Trained(groups=groups, betas=(0.9, 0.999), epsilon=1e-8, model=model)


class Ends(nn.Module):
    """A model of one matrix, without embeddings and head."""

    def get_input_embeddings(self) -> None:
        pass

    get_output_embeddings = get_input_embeddings


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_a_change_by_muon_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    """Divided by lr · sqrt(max(1, rows / columns)) all its singular values are about 1; by the other scale, which is AdamW's,
    its root mean square is about 0.2 lr.
    """
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    gradient = left * torch.logspace(0, -1, min(shape)) @ right  # of singular values from 1 to 0.1
    for scale, wanted in (("original", None), ("match_rms_adamw", 0.2)):
        matrix = nn.Parameter(torch.zeros(shape))
        optimizer = Muon.model_validate({"scale": scale}).build(trained(matrix, lr=0.01, model=Ends()))
        matrix.grad = gradient.clone()
        optimizer.step()
        change = matrix.detach() / -0.01
        if wanted is None:
            values = torch.linalg.svdvals(change / max(1, shape[0] / shape[1]) ** 0.5)
            assert values.min() > 0.65 and values.max() < 1.2
        else:
            assert change.square().mean().sqrt() == pytest.approx(wanted, rel=0.2)


def test_muon_takes_the_matrices_between_embeddings_and_head() -> None:
    model, _ = make_model()
    rates = rates_of(model, [], 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    made = Trained(groups=grouped(model, rates, rates, 0.01), betas=(0.9, 0.999), epsilon=1e-8, model=model)
    optimizer = Muon().build(made)
    by_muon = {names[id(p)] for group in optimizer.param_groups if "ns_steps" in group for p in group["params"]}
    every = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
    assert every == set(rates)
    assert by_muon == {name for name in rates if "proj.weight" in name}


def minimum(make: Callable[[Sequence[Tensor]], Any], gradient: Callable[[int], float], steps: int, rate: float) -> float:
    """Where gradient descent on [-1, 1] from 0 ends, by a falling rate."""
    x = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = make([x])
    for t in range(steps):
        optimizer.param_groups[0]["lr"] = rate / (1 + t) ** 0.5
        x.grad = torch.full_like(x, gradient(t))
        optimizer.step()
        x.data.clamp_(-1, 1)
    return x.item()


def test_adopt_converges_where_adam_goes_to_the_worst_point() -> None:
    """Gradients 3, -1, -1, whose mean is positive, so that -1 is the optimum (Reddi et al. 2018)."""

    def gradient(t: int) -> float:
        return 3.0 if t % 3 == 0 else -1.0

    beta2 = 1 / (1 + 3**2)
    adopt = minimum(lambda x: Adopt([{"params": x}], beta1=0.0, beta2=beta2, epsilon=1e-6, floor=0.9), gradient, 3000, 0.5)
    adam = minimum(lambda x: torch.optim.Adam(x, betas=(0.0, beta2)), gradient, 3000, 0.5)
    assert adopt < -0.9 and adam > 0.9


def test_adopt_converges_on_random_gradients_where_adam_does_not() -> None:
    """10 with a chance of 0.2, else -1, whose mean is 1.2, so that -1 is the optimum: Adam by a small beta2 hardly tells the
    rare large gradient from the others, and goes to the worst point.
    """
    drawn = torch.rand(2000, generator=torch.Generator().manual_seed(0)).tolist()

    def gradient(t: int) -> float:
        return 10.0 if drawn[t] < 0.2 else -1.0

    adopt = minimum(lambda x: Adopt([{"params": x}], beta1=0.0, beta2=0.1, epsilon=1e-6, floor=0.9), gradient, 2000, 0.5)
    adam = minimum(lambda x: torch.optim.Adam(x, betas=(0.0, 0.1)), gradient, 2000, 0.5)
    assert adopt < -0.8 and adam > 0.8


def test_adopts_steps_are_those_of_its_equations() -> None:
    gradients = [[0.5, -2.0], [1.0, 0.1], [-0.3, 4.0], [0.2, 0.2]]
    weight = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
    options = {"beta1": 0.8, "beta2": 0.7, "epsilon": 1e-6, "floor": 0.6}
    optimizer = Adopt([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], **options)
    w, m, v = [1.0, -1.0], [0.0, 0.0], [0.0, 0.0]
    for step, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i, g in enumerate(gradient):
            if step == 1:
                v[i] = g * g
                continue
            scaled = g / max(v[i] ** 0.5, 1e-6, 0.6 ** (step - 2))
            m[i] = scaled if step == 2 else 0.8 * m[i] + 0.2 * scaled
            w[i] = w[i] - 0.1 * 0.5 * w[i] - 0.1 * m[i]
            v[i] = 0.7 * v[i] + 0.3 * g * g
        assert weight.tolist() == pytest.approx(w, abs=1e-14)


def weights(trainer: PostTrainer) -> dict[str, Tensor]:
    model: Any = trainer.model
    return dict(model.named_parameters())


@pytest.mark.parametrize("config", FREE, ids=name_of)
def test_it_trains_and_goes_on_to_the_last_bit(config: type[OptimizerConfig], make_trainer: MakeTrainer) -> None:
    options = {"momentum": 0.9} if config is SGD else {}
    rules: list[ParameterRule] = [MatchedRates(match="embed", rate=0.5)]

    def made(output: str, steps: int) -> PostTrainer:
        own = {"optimizer": config.model_validate(options), "parameters": rules}
        saves = {"save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1}
        return make_trainer("sft", output=output, max_steps=steps, learning_rate=0.01, trainer_options=own, **saves)

    start = {name: p.clone() for name, p in make_model()[0].named_parameters()}
    (whole, short, longer) = made("whole", 4), made("short", 2), made("short", 4)
    whole.train()
    short.train()
    folder = Path(str(longer.args.output_dir))
    longer.run_files.resume_at(2)
    longer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    ended = weights(whole)
    assert all(torch.equal(p, ended[name]) for name, p in weights(longer).items())
    assert all(not torch.equal(p, start[name]) for name, p in ended.items())


def test_a_rate_of_1_is_the_plain_run_to_the_last_bit(make_trainer: MakeTrainer) -> None:
    def ended(output: str, **own: Any) -> dict[str, Tensor]:
        trainer = make_trainer("sft", output=output, optim="adamw_torch_fused", weight_decay=0.1, trainer_options=own)
        trainer.train()
        return weights(trainer)

    plain, by_layer = ended("plain"), ended("layers", parameters=[LayerRates(layers="decay", rate=1.0)])
    named, half = ended("named", optimizer=AdamW()), ended("half", parameters=[LayerRates(layers="decay", rate=0.5)])
    assert all(torch.equal(p, by_layer[name]) and torch.equal(p, named[name]) for name, p in plain.items())
    assert not all(torch.equal(p, half[name]) for name, p in plain.items())


def test_rules_hold_in_their_order_and_schedules_scale_all_alike(make_trainer: MakeTrainer) -> None:
    model, _ = make_model()
    rules = [
        LayerRates(layers="decay", rate=0.5),
        MatchedRates(match="lm_head", lr=0.3),
        MatchedRates(match="layers.0.*bias", rate=2.0, weight_decay=0.7),
    ]
    rates = rates_of(model, rules, 0.1)
    layers = model.config.num_hidden_layers
    assert rates["model.embed_tokens.weight"].lr == 0.1 * 0.5**layers and rates["model.norm.weight"].lr == 0.1
    assert rates["model.layers.0.mlp.up_proj.weight"] == Rates(0.1 * 0.5 ** (layers - 1), None)
    biases = {name: rate for name, rate in rates.items() if "layers.0." in name and "bias" in name}
    assert set(biases.values()) == {Rates(0.2 * 0.5 ** (layers - 1), 0.7)}
    trainer = make_trainer("sft", lr_scheduler_type="linear", max_steps=4, trainer_options={"parameters": rules})
    optimizer = trainer.create_optimizer()
    top = [group["lr"] for group in optimizer.param_groups]
    schedule = trainer.create_scheduler(4, optimizer)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.75 * rate for rate in top] and len(set(top)) > 2
    for rule in (MatchedRates(match="nothing", lr=1.0),):
        with pytest.raises(ValueError, match="no name with 'nothing' in it"):
            rates_of(model, [rule], 0.1)


def test_lora_plus_is_a_rate_of_the_b_matrices() -> None:
    """The same learning rates as peft's create_loraplus_optimizer gives them."""
    from peft import LoraConfig, get_peft_model
    from peft.optimizers import create_loraplus_optimizer

    model = get_peft_model(make_model()[0], LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    theirs: Any = create_loraplus_optimizer(model, torch.optim.AdamW, lr=0.01, loraplus_lr_ratio=16)
    expected = {id(p): group["lr"] for group in theirs.param_groups for p in group["params"]}
    ours = rates_of(model, [MatchedRates(match="lora_B", rate=16)], 0.01)
    assert {name: rate.lr for name, rate in ours.items()} == {
        name: expected[id(p)] for name, p in model.named_parameters() if p.requires_grad
    }
    assert {rate.lr for rate in ours.values()} == {0.01, 0.16}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"optimizer": {"name": "mun"}}, "optimizer.name: mun is unknown; did you mean muon?"),
        ({"optimizer": {"name": "muon"}, "extra": {"optim": "sgd"}}, "optimizer: give it or extra.optim, not both"),
        ({"parameters": [{"match": "a", "lr": 1}], "extra": {"optim": "sgd"}}, "parameters: give it or extra.optim"),
        ({"optimizer": {"name": "sgd"}, "adam_beta2": 0.9}, "sgd reads no adam_beta1, adam_beta2"),
        ({"optimizer": {"name": "adopt", "momentum": 0.9}}, "momentum: unknown key; there are name, beta1"),
        ({"extra": {"optim": "schedule_free_adamw"}}, "averages weights in place of a rate that decays"),
        (
            {"optimizer": {"name": "schedule_free"}},
            "lr_scheduler_type: schedule_free averages weights in place of a rate that",
        ),
        ({"optimizer": {"name": "schedule_free"}, "schedule": {"name": "rex"}}, "take constant, or constant_with_warmup"),
        ({"parameters": [{"match": "a", "lr": -1}]}, "parameters.0.by_name.lr: input should be greater than or equal to 0"),
        ({"parameters": [{"match": "("}]}, "'(' is no regular expression"),
        ({"parameters": [{"match": "a"}]}, "give lr, rate or weight_decay"),
        ({"parameters": [{"match": "a", "lr": 1, "rate": 1}]}, "give either lr or rate"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate({"max_steps": 1, **values})
    assert says in str(faults(caught.value)[0])


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_whole_matrices_are_not_shared_out(name: str) -> None:
    values = {"training": {"max_steps": 2, "optimizer": {"name": name}}, "distributed": {"mode": "zero2", "processes": 2}}
    with pytest.raises(RecipeError, match=f"{name} needs whole matrices in each process, and mode zero2"):
        load_recipe(recipe(**values))


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"extra": {"optim": "schedule_free_adamw"}}, "training.extra.optim: schedule_free_adamw"),
        ({"optimizer": {"name": "schedule_free"}}, "training.optimizer: schedule_free"),
    ],
)
def test_averaged_weights_go_with_neither_rollouts_nor_modes_that_share_out_nor_rules(
    named: dict[str, Any], key: str
) -> None:
    values = {"lr_scheduler_type": "constant", "max_steps": 2, **named}
    with pytest.raises(RecipeError, match=f"{key} makes its steps from other weights"):
        load_recipe(recipe(algorithm={"name": "grpo"}, rollout={"n": 2, "max_tokens": 4}, training=values))
    with pytest.raises(RecipeError, match=f"{key} goes between the weights that it trains and their average"):
        load_recipe(recipe(training=values, distributed={"mode": "fsdp2", "processes": 2}))
    with pytest.raises(RecipeError, match="averages weights itself, and trains others than it shows"):
        load_recipe(recipe(training={**values, "update": [{"name": "l2_sp", "strength": 1}]}))


def test_a_function_gives_the_optimizer_of_all_that_is_trained(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def slow(params, by=1.0): return torch.optim.SGD(params, momentum=by)\n"
        "def other(params): return torch.optim.SGD([torch.zeros(1)])\n"
        "def none(params): return 1\n"
    )
    weight = nn.Parameter(torch.zeros(2))
    own = FunctionOptimizer(path=f"{tmp_path}/own.py:slow", options={"by": 0.5})
    own.check()
    assert built_optimizer(own, trained(weight, lr=0.3)).param_groups[0]["lr"] == 0.3
    nadam = built_optimizer(FunctionOptimizer(path="torch.optim:NAdam"), trained(weight, lr=0.3))
    assert isinstance(nadam, torch.optim.NAdam)
    for name, says in (("other", "other parameters"), ("none", "gave int")):
        with pytest.raises(RecipeError, match=says):
            built_optimizer(FunctionOptimizer(path=f"{tmp_path}/own.py:{name}"), trained(weight, lr=0.3))
    with pytest.raises(ValueError, match="unexpected keyword argument"):
        FunctionOptimizer(path=f"{tmp_path}/own.py:slow", options={"to": 1}).check()
    assert "function" in KIND.members


@pytest.mark.parametrize(
    "config",
    [*(one.model_validate({"name": name_of(one)}) for one in FREE), SGD(momentum=0.9)],
    ids=lambda c: f"{c.name} {c.remembers}",
)
def test_what_an_optimizer_keeps_is_as_it_says(config: OptimizerConfig) -> None:
    """Of a model that is mostly matrices; the plan of a run adds it up."""
    model, _ = make_model(dtype="float32")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = built_optimizer(config, trained(*parameters, lr=1e-3, model=model))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    )
    found, said = kept / sum(p.numel() for p in parameters), config.state(4)
    assert (found > 0) == config.remembers and found <= said + 0.5 and (found >= 0.95 * said or config.name == "muon"), (
        found,
        said,
    )
