"""Rollouts whose teacher is shown another right answer of their group: which rows, and what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from posttrain import Completion, Judgement, Request, Sampling, Weighted, build_algorithm
from posttrain.data.encoding.teacher import AskedLater, asked_by
from posttrain.data.reader import Reader
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.model.load import make_tokenizer
from posttrain.rewards.base import Group
from posttrain.settings.data import Encoding
from posttrain.telling import hearing
from posttrain.train.collect.arrays import from_arrays, to_arrays
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.rollouts import RolloutCollector

TEMPLATE = "{prompt} with {hint}, as {right}."
TOKENIZER: Any = make_tokenizer("bytes")
CONTEXT = 200


class Says:
    """An engine that answers each question by its own texts, in their order."""

    context = CONTEXT

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        self._answers = answers

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        return [
            [self._said(text, request) for text in self._answers[request.question % len(self._answers)]]
            for request in requests
        ]

    def _said(self, text: str, request: Request) -> Completion:
        tokens = (*TOKENIZER(text).input_ids, TOKENIZER.eos_token_id)
        return Completion(tokens, (-1.0,) * len(tokens), "stop", 0)

    def sync(self, model: Any, version: int) -> None:
        pass

    def close(self) -> None:
        pass


class Marked:
    """A reward: right are answers with a `+`; of one with a `?` nothing is said."""

    name, columns = "marked", ()

    def judge(self, group: Group) -> list[Judgement]:
        return [Judgement(None) if "?" in text else Judgement(float("+" in text), "+" in text) for text in group.completions]

    def close(self) -> None:
        pass


def collected(
    *answers: Sequence[str], encoding: Encoding | None = None, context: int = CONTEXT, hint: str = "care"
) -> Collection:
    """The first collection of as many questions as there are lists of answers, in the order of the questions."""
    algorithm = build_algorithm("sdpo", rollouts=len(answers[0]), teacher_template=TEMPLATE)
    encoding, ends = encoding or Encoding(chat_template=False), (TOKENIZER.eos_token_id,)
    asked = asked_by(algorithm.needs, context)
    assert asked is not None
    records = [Record(f"x:{i}", {"prompt": f"q{i}", "hint": "care", "right": "a column"}) for i in range(len(answers))]
    problems, _ = Reader(encoding, TOKENIZER, ends, CONTEXT).problems(records, room=10, needs=(), teacher=asked)
    made = RolloutCollector(
        problems,
        algorithm,
        Says(answers),
        [Weighted(Marked(), verdict=True)],
        Sampling(max_tokens=40, seed=1),
        TOKENIZER,
        questions=len(answers),
        asked_later=AskedLater(asked, encoding, ends),
    )
    return made.collect(None, 0, 0.0)


def asked_of(collection: Collection) -> dict[str, str | None]:
    """By each answer's text, what the teacher of it reads; the question's own prompt is what comes first in it."""
    read = [row.teacher_prompt for row in collection.rows]
    said = [TOKENIZER.decode(row.completion, skip_special_tokens=True) for row in collection.rows]
    return {text: None if ids is None else TOKENIZER.decode(ids) for text, ids in zip(said, read, strict=True)}


def test_each_answer_is_shown_the_first_other_right_one_of_its_question() -> None:
    """And none of another question; where none is right, or only itself, there is no teacher."""
    collection = collected(["a", "b+", "c+", "d"], ["e", "f", "g", "h"], ["i+", "j", "k", "l?+"])
    own = "{} with care, as {}.".format
    assert asked_of(collection) == {
        "a": own("q0", "b+"), "b+": own("q0", "c+"), "c+": own("q0", "b+"), "d": own("q0", "b+"),
        **dict.fromkeys("efgh"),
        "i+": None, "j": own("q2", "i+"), "k": own("q2", "i+"), "l?+": own("q2", "i+"),
    }  # fmt: skip
    taught = collection.batch.taught
    assert taught is not None and taught.tolist() == [row.teacher_prompt is not None for row in collection.rows]
    assert collection.metrics["rollout/taught"] == int(taught.sum()) / 12 == 7 / 12


def test_none_is_shown_its_own_words() -> None:
    """Not from another row either: there is nothing in them that it does not say."""
    assert asked_of(collected(["a+", "a+", "b", "c"])) == {
        "a+": None,
        "b": "q0 with care, as a+.",
        "c": "q0 with care, as a+.",
    }
    assert asked_of(collected(["a+", "a+", "b+", "c"]))["a+"] == "q0 with care, as b+."
    assert asked_of(collected(["", "+", "b", "c"]))["b"] == "q0 with care, as +."


def test_what_the_teacher_cannot_read_is_not_taught_and_told_once() -> None:
    with hearing() as told:
        collection = collected(["a" * 30, "b", "c+" * 5, "d"], ["e", "f", "g+" * 5, "h"], context=36)
    taught = asked_of(collection)
    assert taught["a" * 30] is None and taught["b"] == "q0 with care, as c+c+c+c+c+."
    assert [one.rule for one in told] == ["not-taught"] and collection.metrics["rollout/taught"] == 5 / 8


def test_it_is_asked_by_the_chat_template_of_the_questions() -> None:
    encoding = Encoding(chat_template=True, system_prompt="Be brief.")
    collection = collected(["a", "b+"], encoding=encoding)
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q0 with care, as b+."}]
    whole = TOKENIZER.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    taught = collection.rows[0].teacher_prompt
    assert taught is not None and taught.tolist() == list(whole)


def test_it_is_kept_with_a_collection() -> None:
    collection = collected(["a", "b+"], ["c", "d"])
    back = from_arrays(to_arrays(collection))
    assert asked_of(back) == asked_of(collection)
    assert back.batch.taught is not None and back.batch.taught.tolist() == [True, False, False, False]


def test_questions_are_known_by_their_template_and_without_a_column_they_are_refused() -> None:
    asked = asked_by(build_algorithm("sdpo", teacher_template=TEMPLATE).needs, None)
    reader = Reader(Encoding(chat_template=False), TOKENIZER, [TOKENIZER.eos_token_id], CONTEXT)
    [problem], report = reader.problems([Record("x:1", {"prompt": "q", "hint": "h", "right": "r"})], needs=(), teacher=asked)
    assert problem.teacher_prompt == TOKENIZER("q with h, as .").input_ids and report.unread == {"right": 1}
    with pytest.raises(DataError, match="hint are needed"):
        reader.problems([Record("x:1", {"prompt": "q"})], needs=(), teacher=asked)


def test_who_is_taught_by_which_answer_is_trls_choice() -> None:
    """Where right answers differ in words, as TRL's own builder has it."""
    sdpo = pytest.importorskip("trl.experimental.sdpo.sdpo_trainer")
    answers = [["a", "b+", "c+", "d"], ["e", "f", "g", "h"], ["i+", "j", "k", "l"]]
    flat = [text for group in answers for text in group]
    ids = [torch.tensor([*TOKENIZER(text).input_ids, TOKENIZER.eos_token_id]) for text in flat]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=TOKENIZER.pad_token_id)
    trainer = SimpleNamespace(
        accelerator=Accelerator(cpu=True),
        model=SimpleNamespace(training=True),
        num_generations=4,
        num_generations_eval=4,
        _tokenizer=TOKENIZER,
        processing_class=TOKENIZER,
        _tokenize_prompts_untruncated=lambda texts: [TOKENIZER(text).input_ids for text in texts],
        args=SimpleNamespace(
            success_reward_threshold=1.0, dont_reprompt_on_self_success=True, use_successful_as_teacher=True,
            environment_feedback_only_without_solution=False, include_environment_feedback=False, max_reprompt_len=1000,
            remove_thinking_from_demonstration=False, reprompt_template="{prompt} with care, as {solution}.{feedback}",
            solution_template="{successful_previous_attempt}",
        ),
    )  # fmt: skip
    rewards = torch.tensor([float("+" in text) for text in flat])
    output = {"completion_ids": padded, "completion_mask": (padded != TOKENIZER.pad_token_id).long()}
    theirs = sdpo.SuccessfulRolloutTeacherContextBuilder(trainer).build(output, [f"q{i // 4}" for i in range(12)], rewards)
    collection = collected(*answers)
    taught = collection.batch.taught
    assert taught is not None and theirs["self_distillation_mask"].bool().tolist() == taught.tolist()
    width = padded.shape[1]
    for row, read, mask in zip(collection.rows, theirs["teacher_input_ids"], theirs["teacher_attention_mask"], strict=True):
        if row.teacher_prompt is not None:
            assert read[:-width][mask[:-width].bool()].tolist() == row.teacher_prompt.tolist()
