"""The trainer of a prepared run, and its evaluations of sampled answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from posttrain.distributed import ranks
from posttrain.execution.evaluation import evaluate
from posttrain.execution.folder.best import Best
from posttrain.execution.numbers import computed_in
from posttrain.execution.prepare.preparation import Prepared
from posttrain.model.saving import save_model
from posttrain.recipe.recipe import Recipe
from posttrain.rewards.options import Judged
from posttrain.rollout.engine import RolloutEngine, rest
from posttrain.rollout.make import make_engine, sampling_of
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.collect.ahead.sampler import Ahead
from posttrain.train.collect.episodes.branching import BranchingPlayer
from posttrain.train.collect.episodes.make import make_player
from posttrain.train.collect.episodes.player import Player
from posttrain.train.options import Execution, Watching
from posttrain.train.schedules import built_schedule
from posttrain.train.trainer import PostTrainer
from posttrain.train.watch.records import JsonLines, Listener


def sampled_ahead(recipe: Recipe) -> Ahead | None:
    """How a recipe's rollouts are sampled beside training, if they are."""
    rollout = recipe.rollout
    if rollout is None or not rollout.ahead:
        return None
    judged = Judged(recipe.data.judged, rollout.max_tokens)
    return Ahead(rollout.ahead, recipe.algorithm, recipe.rewards, judged, rollout.vllm, leads=ranks.is_main())


def engine_of(prepared: Prepared, permissions: Permissions) -> RolloutEngine:
    """The engine that samples rollouts, or answers of evaluations alone.

    Raises:
        SetupError, EngineError: as `make_engine`.
    """
    recipe = prepared.recipe
    return make_engine(
        recipe.rollout,
        prepared.model,
        prepared.tokenizer,
        compute=computed_in(recipe),
        allow_remote=permissions.remote_engine,
        lockstep=recipe.distributed.shares_parameters and ranks.world() > 1,
    )


def player_of(prepared: Prepared, engine: RolloutEngine) -> Player | None:
    """What plays the episodes of a recipe that has an environment.

    Raises:
        SetupError: as `make_player`.
    """
    recipe, rollout = prepared.recipe, prepared.recipe.rollout
    if recipe.environment is None:
        return None
    return make_player(
        recipe.environment,
        engine,
        prepared.model,
        prepared.tokenizer,
        recipe.data,
        served=rollout.vllm.max_model_len if rollout is not None and rollout.engine == "vllm" else None,
        tools=prepared.sets.tools,
        lockstep=recipe.distributed.shares_parameters and ranks.world() > 1,
    )


def make_trainer(
    prepared: Prepared,
    arguments: TrainingArguments,
    folder: Path,
    listeners: Sequence[Listener],
    engine: RolloutEngine,
    ahead: Ahead | None,
    player: Player | None,
    **options: Any,
) -> PostTrainer:
    """The trainer that the recipe asks for; `options` are more of its own."""
    recipe, schedule = prepared.recipe, prepared.recipe.training.schedule
    start_metrics = {f"data/{name}": value for name, value in prepared.collected.items()}
    for name, report in prepared.sets.reports.items():
        start_metrics.update(report.metrics(f"data/{name}"))
    rollouts: dict[str, Any] = {}
    if recipe.rollout is not None:
        rollouts = {
            "demonstrations": prepared.sets.demonstrations,
            "rewards": prepared.rewards,
            "engine": engine,
            "sampling": sampling_of(recipe.rollout, recipe.seed),
            "mask_cut_off": recipe.rollout.mask_cut_off,
            "resamples": recipe.rollout.resamples,
            "ahead": ahead,
            "player": player,
            "replay": recipe.rollout.replay,
            "encoding": recipe.data,
        }
    trainer = PostTrainer(
        prepared.model,
        prepared.algorithm,
        tokenizer=prepared.tokenizer,
        train_dataset=prepared.sets.train if prepared.sets.stream is None else prepared.sets.stream,
        eval_dataset=prepared.sets.held_out,
        args=arguments,
        execution=Execution(
            **recipe.training.model_dump(include={"micro_batch_tokens", "head", "layout", "compile"}),
            budget=recipe.training.budget,
            stop_when=recipe.training.stop_when,
            distributed=recipe.distributed,
            optimizer=recipe.training.optimizer,
            parameters=recipe.training.parameters,
            reference=recipe.model.reference,
            trainable=recipe.training.trainable,
            update=recipe.training.update,
            update_rows=prepared.sets.kept_rows,
            schedule=None if schedule is None else built_schedule(schedule, recipe.training.learning_rate),
        ),
        watching=Watching(
            listeners=listeners,
            sample_evaluation=partial(_sample, prepared, folder, engine, ahead, player) if prepared.sets.problems else None,
            start_metrics=start_metrics,
            evaluate_first=bool(prepared.sets.held_out or prepared.sets.problems),
        ),
        teachers=prepared.teachers,
        mixed=prepared.mixed,
        order=prepared.rule,
        tokens_per_step=recipe.training.tokens_per_step,
        **rollouts,
        **options,
    )
    for theirs in (PrinterCallback, ProgressCallback):  # the run has listeners of its own
        trainer.remove_callback(theirs)
    if recipe.eval.metric is not None:
        save = partial(save_model, trainer.model, prepared.tokenizer, folder / "best", **prepared.saved)
        trainer.listeners.append(Best(recipe.eval.metric, folder / "best", save))
    return trainer


def _sample(
    prepared: Prepared, folder: Path, engine: RolloutEngine, ahead: Ahead | None, player: Player | None, step: int
) -> dict[str, float]:
    config, metrics = prepared.recipe.eval, dict[str, float]()
    if player is not None and config.branch is not None and config.branch.n > 1:
        player = BranchingPlayer(player, config.branch)
    if ahead is not None:
        ahead.rest()
    engine.sync(prepared.model, step)
    for name, asked in prepared.sets.problems.items():
        result = evaluate(
            engine,
            prepared.tokenizer,
            asked,
            prepared.graders.of(prepared.recipe.data.evaluated[name]),
            sampling_of(config, config.seed),
            samples=config.samples,
            ks=config.k,
            player=player,
        )
        metrics.update(result.metrics(f"eval/{name}"))
        if ranks.is_main():
            JsonLines(folder / "completions" / f"eval-{name}-step-{step:06d}.jsonl").rewrite(result.rows())
    rest(engine)
    return metrics
