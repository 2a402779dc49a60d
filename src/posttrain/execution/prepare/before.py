"""What is sampled before training, and the prepared run with the data that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posttrain.data.columns import names_of, tell_unread
from posttrain.data.encoding.teacher import asked_by
from posttrain.data.overlap import Overlaps
from posttrain.data.rows import DataReport
from posttrain.distributed import ranks
from posttrain.execution.numbers import computed_in
from posttrain.execution.prepare.collect.asking import room_for
from posttrain.execution.prepare.collect.episodes.collecting import played
from posttrain.execution.prepare.collect.made import each_once, keep, of_rounds
from posttrain.execution.prepare.collect.steps import Collecting, done
from posttrain.execution.prepare.data import tell_overlaps, train_set
from posttrain.execution.prepare.mixture import held_of, parts, records_of
from posttrain.execution.prepare.passage import Passage
from posttrain.execution.prepare.preparation import Prepared
from posttrain.execution.prepare.presample import filtered, presample, summary
from posttrain.model.scoring import computing
from posttrain.rollout.make import make_engine, sampling_of
from posttrain.settings.data import Generated
from posttrain.settings.data.collect import key_of
from posttrain.settings.data.generate import Generate
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.given.teachers import known_to
from posttrain.train.watch.records import Listener


def collected(prepared: Prepared, folder: Path, permissions: Permissions, listeners: Sequence[Listener]) -> Prepared:
    """The same with the data that `data.collect` makes; `collected.jsonl` in the run's folder has a line for each question,
    each step after the first a file of its own, and `made.jsonl` the rows that they make together.

    Raises:
        DataError: nothing is left to be trained on.
        SetupError: a writer cannot be had.
        EngineError: the engine failed; what was sampled until then is kept.
    """
    if prepared.recipe.data.generates:
        return _generated(prepared, folder, permissions, listeners)
    if prepared.recipe.environment is not None:
        return played(prepared, folder / "collected.jsonl", permissions)
    return _presampled(prepared, folder / "collected.jsonl", permissions)


def _presampled(prepared: Prepared, path: Path, permissions: Permissions) -> Prepared:
    """By one step over questions that are encoded: the tokens that were sampled are those that are trained on."""
    recipe, sets = prepared.recipe, prepared.sets
    [config] = [recipe.data.collect] if not isinstance(recipe.data.collect, list) else recipe.data.collect
    assert config is not None
    compute, place = computed_in(recipe), {"allow_remote": permissions.remote_engine}
    engine = make_engine(config.counted, prepared.model, prepared.tokenizer, compute=compute, **place)
    try:
        sampling, grader = sampling_of(config.counted, recipe.seed), prepared.graders.of(recipe.data.judged)
        with computing(prepared.model, bf16=compute == "bfloat16"):
            engine.sync(prepared.model, 0)
            sampled = presample(config, sets.candidates, engine, grader, prepared.tokenizer, sampling, path)
    finally:
        engine.close()
    shown = prepared.algorithm.needs.own_demonstrations
    train, report = filtered(config, sets.train, sampled, demonstrations=shown)
    sets = replace(sets, train=train, reports={**sets.reports, "collect": report})
    return replace(prepared.with_sets(sets), collected=summary(sampled, config.counted.k))


def _generated(prepared: Prepared, folder: Path, permissions: Permissions, listeners: Sequence[Listener]) -> Prepared:
    """By steps over rows that are not encoded yet, which are then read as any other's."""
    recipe, needs, sets = prepared.recipe, prepared.algorithm.needs, prepared.sets
    by = Collecting(
        recipe,
        prepared.model,
        prepared.tokenizer,
        prepared.teachers,
        prepared.graders,
        computed_in(recipe),
        needs.own_demonstrations,
        permissions.remote_engine,
        folder,
    )
    held = held_of(recipe.data)
    [part] = parts(recipe.data)
    shared = {"words": recipe.data.decontaminate.n, "dropping": recipe.data.kept_clean_of}
    records = list(Overlaps(held, **shared).through(records_of(part, recipe.data, recipe.seed)))
    figures: dict[str, float] = {}
    reports: dict[str, DataReport] = {}
    for number, step in enumerate(recipe.data.steps):
        key = f"{key_of(number, recipe.data.collect)}.max_tokens"
        made = done(number, step, records, by, room_for(prepared.model, step, step.max_tokens, key))
        records, reports[made.name] = made.records, made.report
        figures |= {f"{made.name}/{name}": value for name, value in made.figures.items()}
        for listener in listeners if ranks.is_main() else ():
            listener.on_collected(made.path, {**made.figures, "rows": float(len(records))})
    if ranks.is_main():
        keep(folder, records)
    if recipe.data.earlier_rounds is not None:
        rows = [*of_rounds(recipe.data.earlier_rounds), *records]
        records = each_once(rows)
        figures |= {"rounds/rows": float(len(records)), "rounds/repeated": float(len(rows) - len(records))}
    looked = Overlaps(held, **shared)  # of what is trained on, which is this
    passage = Passage(recipe, looked, records)
    [teacher] = prepared.teachers.values() or [prepared.model]
    asked = asked_by(needs, known_to(teacher))
    train, report = train_set(
        recipe,
        prepared.algorithm,
        prepared.model,
        prepared.tokenizer,
        passage.trained(records),
        prepared.rewards,
        asked,
        part.label,
    )
    _tell_unread(prepared, report)
    sets = replace(sets, train=train, reports={**sets.reports, **reports, "train": report}, overlaps=looked.found())
    tell_overlaps(recipe, sets)
    return replace(prepared.with_sets(sets), collected=figures)


def _tell_unread(prepared: Prepared, report: DataReport) -> None:
    """Columns that neither training nor a step before it reads."""
    data = prepared.recipe.data
    if isinstance(data.train, Generated):  # has columns for every kind of training
        report.unread.clear()
    for step in data.steps:
        read_by = names_of(step.prompt_template or "") if isinstance(step, Generate) else ()
        judged = ("answer", "solution") if not isinstance(step, Generate) or step.verdict != "none" else ()
        said = ("reward",) if isinstance(step, Generate) and step.verdict != "none" else ()
        for name in (*read_by, *judged, *said):
            report.unread.pop(name, None)
    tell_unread("data.train", [report])
