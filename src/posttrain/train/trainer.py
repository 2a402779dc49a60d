"""The trainer: a model, an algorithm, data, and what else a recipe has, put together. How it trains is in loop.py."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from posttrain.data.encoding.teacher import asked_by
from posttrain.data.rows.stream import Stream
from posttrain.data.rows.together import in_memory
from posttrain.distributed.signals import Interruption
from posttrain.estimator import Algorithm
from posttrain.model.pretrained.tokenizer import settle_ends
from posttrain.model.proofs.compiled import use_compiled
from posttrain.model.scoring import Scorer
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.settings.data import Encoding
from posttrain.settings.rollout import ReplayConfig
from posttrain.train.checkpoint.run_state import RunState
from posttrain.train.collect.ahead.sampler import Ahead
from posttrain.train.collect.episodes.player import Player
from posttrain.train.collect.make import collected_data
from posttrain.train.collect.order import Mixed, Rule, examples_of_epochs
from posttrain.train.collect.rollouts import RESAMPLES
from posttrain.train.given.arguments import check_arguments, check_best, for_the_parent
from posttrain.train.given.handed import handed_over
from posttrain.train.given.keywords import sorted_out
from posttrain.train.given.ready import make_ready
from posttrain.train.given.rows import as_examples, read_as
from posttrain.train.given.teachers import NOBODY, as_teachers, known_to
from posttrain.train.learner import Learner
from posttrain.train.loop import Loop
from posttrain.train.options import Execution, Watching
from posttrain.train.updates._applied import applied
from posttrain.train.updates._chosen import freeze
from posttrain.train.updates._rows import row_gradients
from posttrain.train.watch.coefficients import Coefficients
from posttrain.train.watch.nonfinite import NonFinite
from posttrain.train.watch.records import RunFiles
from posttrain.train.watch.trackers import Trackers
from posttrain.train.watch.watch import Watch


class PostTrainer(Loop):
    """transformers' Trainer for any `Algorithm`, over demonstrations, preference pairs or rollouts.

    Args:
        model: a causal language model, a peft model over one, or a name or folder, which is loaded in float32.
        algorithm: its name, a mapping with name and options as in a recipe, or what `build_algorithm` gives.
        tokenizer: for padding, and for data sets that are not prepared yet; also as `processing_class`. A model by name
            brings its own.
        train_dataset: a data set with TRL's columns, rendered with the tokenizer's chat template; or prepared `Example`s
            (`Problem`s for an algorithm over rollouts).
        eval_dataset: such a data set, or several by name, for the validation loss; a single one is called held_out.
        args: rows of a step (rollouts, for an algorithm over them) are per_device_train_batch_size ×
            gradient_accumulation_steps × ranks, and a micro-batch has at most per_device_train_batch_size rows of each rank;
            read once, the parent runs with 1. A field that would not be honoured is refused.
        demonstrations: `Example`s or a data set, for an algorithm that trains on a set of its own beside the questions.
        rewards: judge rollouts: functions in TRL's form, called in this process, or objects with `judge`; one or several,
            also as `reward_funcs`. One by itself has weight 1.
        engine: samples rollouts; transformers, in this process, if not given.
        sampling: of rollouts; log-probs are of the distribution at its temperature.
        mask_cut_off: rollouts that max_tokens cut off carry no loss.
        teachers: by a name each, models over the same vocabulary, names or folders of such, or the address of a vLLM server
            that has one, for an algorithm that learns from one. A model takes no gradient from here on.
        encoding: how a teacher is asked that is shown rollouts: as the questions were that are prepared; by the tokenizer's
            chat template if not given.
        resamples: rounds of replacing groups without signal, where the algorithm asks for it.
        ahead: rollouts are sampled beside training, over the servers of `engine`; whoever made it closes it.
        player: plays episodes with an environment over `engine`, which are then the rollouts; whoever made it closes it. What
            it pays is a reward among the others.
        replay: rollouts of earlier collections come back in later ones.
        mixed: the sources that prepared rows are of, end to end, if there are several.
        order: of the rows of one source in each pass over it (`train.collect.order.rules`); a random one if not told.
        tokens_per_step: a step takes the next rows that have no more tokens together, and args say of it only how many rows a
            micro-batch has at most.
        execution: how steps are made.
        watching: what is measured and told.
        interruption: signals that end the run between two steps, with a checkpoint; none are listened to without it.
        facts: are written into the manifest of each checkpoint.
        callbacks: of transformers.
        theirs: peft_config, optimizers and optimizer_cls_and_kwargs as transformers and TRL have them; their other keywords
            get a sentence that says what takes their place.

    Raises:
        SetupError: what the algorithm needs cannot be had, what is handed over cannot be taken, an unsuitable head, several
            devices in one process, or float16.
    """

    def __init__(
        self,
        model: Any,
        algorithm: Algorithm | str | Mapping[str, Any],
        *,
        tokenizer: Any = None,
        train_dataset: Any,
        eval_dataset: Any = None,
        args: TrainingArguments,
        demonstrations: Any = (),
        rewards: Any = (),
        engine: RolloutEngine | None = None,
        sampling: Sampling | None = None,
        mask_cut_off: bool = False,
        resamples: int = RESAMPLES,
        teachers: Mapping[str, Any] = NOBODY,
        encoding: Encoding | None = None,
        ahead: Ahead | None = None,
        player: Player | None = None,
        replay: ReplayConfig | None = None,
        mixed: Mixed | None = None,
        order: Rule | None = None,
        tokens_per_step: int | None = None,
        execution: Execution = Execution(),  # noqa: B008  (frozen)
        watching: Watching = Watching(),  # noqa: B008
        interruption: Interruption | None = None,
        facts: Mapping[str, Any] | None = None,
        callbacks: list[Any] | None = None,
        **theirs: Any,
    ) -> None:
        check_arguments(args)
        given = handed_over(
            model,
            algorithm,
            train_dataset,
            eval_dataset,
            tokenizer=tokenizer,
            rewards=rewards,
            engine=engine,
            sampling=sampling,
            execution=execution,
            seed=args.seed,
            deepspeed=args.deepspeed is not None,
            theirs=sorted_out(theirs, inspect.signature(PostTrainer).parameters),
        )
        model, tokenizer, algorithm = given.model, given.tokenizer, given.algorithm
        best = check_best(args, given.metrics, callbacks or (), open_ended=watching.sample_evaluation is not None)
        self._algorithm, self._execution, self._watching = algorithm, execution, watching
        self._interruption, self._facts, self._keep = interruption, facts or {}, args.save_total_limit
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        settle_ends(model, tokenizer)
        taught: dict[str, Any] = {"teachers": as_teachers(teachers, algorithm, tokenizer), "device": args.device}
        [teacher] = taught["teachers"].values() or [model]
        asked = asked_by(algorithm.needs, known_to(teacher))
        data, collector, steps = collected_data(
            given.train,
            algorithm,
            model,
            tokenizer,
            rows=rows,
            tokens=tokens_per_step,
            seed=args.seed if args.data_seed is None else args.data_seed,
            rewards=given.rewards,
            engine=given.engine,
            sampling=sampling,
            demonstrations=demonstrations,
            teacher=asked,
            encoding=encoding,
            mask_cut_off=mask_cut_off,
            resamples=resamples,
            ahead=ahead,
            player=player,
            replay=replay,
            epochs=args.num_train_epochs if args.max_steps <= 0 else None,
            steps=args.max_steps,
            mixed=mixed,
            rule=order,
        )
        folder, distributed = Path(str(args.output_dir)), execution.distributed
        read = examples_of_epochs(args.num_train_epochs, len(data))
        self.run_state, self.run_files = RunState(collector, NonFinite(folder, execution.nonfinite_limit)), RunFiles(folder)
        self._eval_examples = {
            name: as_examples(
                examples,
                model,
                tokenizer,
                **read_as(algorithm.needs, held_out=True),
                teacher=asked,
                label=f"eval_dataset {name}",
            )
            for name, examples in given.held_out.items()
        }
        if execution.trainable is not None:
            freeze(model, execution.trainable, args.seed)
        numbers: dict[str, Any] = {"bf16": args.bf16 or given.bf16, "deepspeed": args.deepspeed is not None}
        start = make_ready(model, tokenizer, algorithm, execution, **taught, **numbers)
        super().__init__(
            model=model,
            args=for_the_parent(
                args,
                steps=steps.steps(read),
                epoch=steps.steps(len(data)),
                metric=best,
                bf16=numbers["bf16"],
                fsdp2=distributed is not None and distributed.mode == "fsdp2" and args.world_size > 1,
            ),
            train_dataset=data,  # type: ignore[arg-type]
            eval_dataset=self._eval_examples or {"none": []},  # type: ignore[arg-type]  # the parent asks for one
            processing_class=tokenizer,
            callbacks=callbacks,
            **given.parents,
        )
        self.trackers = Trackers(self.callback_handler, every=max(1, int(args.logging_steps)))
        vars(self.accelerator.ddp_handler)["gradient_as_bucket_view"] = True  # else all gradients are there twice
        for frozen in (start.reference, start.teacher):
            if frozen is not None:
                frozen.place(self.accelerator, distributed)
        if execution.compile:
            where = {"layout": start.layout, "ranks": self.args.world_size}
            use_compiled(model, start.reference, len(tokenizer), **where, **numbers)
        if start.reference is not None and start.reference.moves:
            self.run_state.reference = start.reference
        bfloat16 = numbers["bf16"] or model.dtype == torch.bfloat16
        self._gap_bound = math.inf if player is None else player.bound(sampling, bfloat16=bfloat16)
        compared = sampling is not None and algorithm.needs.rollouts
        self._learner = Learner(
            algorithm,
            start.reference,
            self.accelerator,
            scorer=Scorer(start.head, sampling.temperature if sampling is not None and compared else 1.0),
            layout=start.layout,
            teacher=start.teacher,
            rows=args.per_device_train_batch_size,
            tokens=execution.micro_batch_tokens,
        )
        kept = {
            name: as_examples(rows, model, tokenizer, label=f"update_rows {name}")
            for name, rows in execution.update_rows.items()
        }
        how: dict[str, Any] = {"scorer": Scorer(start.head), "layout": start.layout, "accelerator": self.accelerator}
        learnt = row_gradients(execution, kept, model, seed=args.seed, **how)
        self.run_state.updates = applied(execution, model, seed=args.seed, world=args.world_size, rows=learnt)
        self.add_callback(self.run_state.updates)
        self.run_state.anchor, self.run_state.coefficients = self._learner.anchor, Coefficients(algorithm.adaptive)
        known = in_memory(data) and not isinstance(given.train, Stream)  # of others a row is a new object whenever it is read
        self._reads_again = known and steps.read(self.args.max_steps) > len(data)
        self._watch = Watch(self.run_files, execution.stop_when, compares=algorithm.compares_rewards)
        told = [self.run_files, *watching.listeners, self._watch, self.trackers]
        self.listeners = told if self.is_world_process_zero() else []
        self._record = dict(watching.start_metrics)
        self._sources = () if mixed is None else mixed.names
