"""What a run will take of its device's memory, and what follows from it for gradient checkpointing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from posttrain.distributed import ranks
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.needs import Needs
from posttrain.execution.memory.activations import Activations, Lora, Shape, activations
from posttrain.execution.memory.process import Checkpointing, Held, Room, checkpointing, held, room
from posttrain.execution.numbers import computed_in, has_own_masters, on_gpu
from posttrain.model.adapters.merging import adapted_modules
from posttrain.model.adapters.rounded import rounded_layers
from posttrain.model.frozen.reference import only_multiplied
from posttrain.recipe.recipe import Recipe
from posttrain.telling import tell


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of each process: what it holds, what a micro-batch of so many tokens adds, and what it has room for."""

    held: Held
    tokens: int
    passing: Activations | None
    there: Room
    checkpointing: Checkpointing
    optimizer: str

    def rows(self) -> dict[str, str]:
        """For a reader."""
        passing = "no estimate: the model's config lacks sizes, or tells of experts"
        if self.passing is not None:
            sizes = (f"{size / 1e9:.3g} GB" for size in (self.passing.plain, self.passing.checkpointed))
            passing = f"{self.tokens:,} tokens: about {{}}, with gradient checkpointing {{}}".format(*sizes)
        return {
            f"memory of a process, with {self.optimizer}": str(self.held),
            "activations of a micro-batch": passing,
            "memory of the device": str(self.there),
            "gradient checkpointing": str(self.checkpointing),
        }

    def decide_checkpointing(self) -> bool:
        """Whether layers are computed again; told where it is the estimate that wants it or speaks against it."""
        decided = ranks.broadcast(self.checkpointing, "gradient checkpointing")  # a machine's free memory is another on each
        if decided.doubt or (decided.on and not decided.asked):
            tell("gradient-checkpointing", f"Gradient checkpointing is {decided}.")
        return decided.on


def footprint(
    recipe: Recipe, algorithm: Algorithm, model: Any, *, teachers: Collection[Any] = (), longest: int, prompt: int
) -> Footprint:
    """Of a run whose longest row, and longest prompt, have so many tokens; the models are in the machine's memory."""
    config, training, needs = recipe.distributed, recipe.training, algorithm.needs
    cuda, processes = on_gpu(recipe), max(config.processes, ranks.world())
    numbers, precision = [p for one in (model, *teachers) for p in one.parameters()], _precision(recipe, model)
    sizes = _sizes(recipe, model, teachers, reference=needs.reference)
    rows = needs.unit
    units = max((training.rows_per_step or training.tokens_per_step or 1) // processes, 1)
    tokens = rows * longest * min(training.micro_batch_rows or units, units)
    if training.tokens_per_step is not None and training.layout != "padded":
        tokens = min(tokens, training.tokens_per_step)
    tokens = max(min(tokens, training.micro_batch_tokens), rows * longest)
    shares = training.layout != "shared" or needs.unit > 1 or needs.rollouts
    shape, passing = Shape.of(model.config), None
    if shape is not None:
        layout = training.layout if shares else "packed"
        passing = activations(
            shape,
            tokens=tokens,
            longest=longest,
            prompt=prompt,
            group=_sharing(needs, training.micro_batch_rows or units),
            layout=layout,
            scores=1 + needs.entropy + needs.collision + needs.compares_distributions,
            whole=training.head == "whole",
            device="cuda" if cuda else "cpu",
            **precision,
        )
    vllm = recipe.rollout.vllm if recipe.rollout is not None and recipe.rollout.engine == "vllm" else None
    there = room(
        cuda=cuda,
        processes=config.processes,
        loaded=sum(p.numel() * p.element_size() for p in numbers),
        engine=vllm.gpu_memory_utilization if vllm is not None and vllm.beside_the_trainer else 0.0,
    )
    kept = held(config, processes, **sizes, on_device=cuda)
    wanted = training.gradient_checkpointing
    if wanted is None and not getattr(model, "supports_gradient_checkpointing", True):
        decision = Checkpointing(False, "this model has none")
    else:
        decision = checkpointing(wanted, kept, passing, there)
    name = "AdamW" if training.optimizer is None else training.optimizer.name
    return Footprint(held(config, processes, **sizes), tokens, passing, there, decision, name)


def _sharing(needs: Needs, units: int) -> int:
    """Rows of a micro-batch that have one prompt."""
    if needs.unit > 1:
        return needs.crossed or needs.unit
    return max(min(needs.rollouts, units), 1)


def _sizes(recipe: Recipe, model: Any, teachers: Collection[Any], *, reference: bool) -> dict[str, Any]:
    """Of what a process holds, by the names of `held`."""
    cast = 2 if has_own_masters(recipe) else None  # DeepSpeed casts all parameters
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = sum(p.numel() * (cast or p.element_size()) for p in model.parameters() if not p.requires_grad)
    frozen += sum(layer.scale_bytes for _, layer in rounded_layers(model))
    sizes: dict[str, Any] = {"trained": sum(p.numel() for p in trained), "frozen": frozen}
    sizes["number"] = cast or trained[0].element_size()
    if recipe.training.optimizer is not None:
        sizes["state"] = recipe.training.optimizer.state
    sizes["teacher"] = sum(p.numel() * (cast or p.element_size()) for one in teachers for p in one.parameters())
    sizes["copies"] = sizes["trained"] * sizes["number"] * sum(rule.copies for rule in recipe.training.update)
    moves = recipe.model.reference.refresh > 0
    adapter = recipe.model.adapter
    if reference and adapter is not None and (moves or not adapter.starts_exactly):  # a copy, which shares the base
        sizes["reference"] = sum(p.numel() * p.element_size() for p in trained)
    if reference and adapter is None:
        shared_out = recipe.distributed.shares_parameters or recipe.distributed.by_deepspeed
        halves = only_multiplied(model) if computed_in(recipe) == "bfloat16" and not (shared_out or moves) else set[int]()
        sizes["reference"] = sum(p.numel() * (2 if id(p) in halves else cast or p.element_size()) for p in model.parameters())
    return sizes


def _precision(recipe: Recipe, model: Any) -> dict[str, Any]:
    """Bytes of numbers: stored, and in matrix products; and the adapter."""
    casts, bf16 = has_own_masters(recipe), computed_in(recipe) == "bfloat16"
    number = next(model.parameters()).element_size()
    lora = None
    if recipe.model.adapter is not None:
        on = {name.rpartition(".")[2] for name in adapted_modules(model)}
        own = 2 if casts else next(p.element_size() for p in model.parameters() if p.requires_grad)
        lora = Lora(frozenset(on), recipe.model.adapter.r or 0, own, 2 if bf16 else own)
    return {"stored": 2 if casts else number, "computed": 2 if bf16 else number, "lora": lora}
