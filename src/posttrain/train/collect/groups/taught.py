"""What the teacher of sampled rows is asked in place of their prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posttrain.data.answers import AnswerText
from posttrain.data.encoding.teacher import TeacherPrompts
from posttrain.data.rows import BadRow
from posttrain.telling import tell
from posttrain.train.collect.groups import Rollouts

Asked = list[NDArray[np.int32] | None]
NOT_TAUGHT = (
    "A right answer is not shown to the teacher of another where it would then read more tokens than it knows, or names of "
    "special tokens that cannot be written as text: such answers are not taught (rollout/taught). A smaller "
    "rollout.max_tokens leaves room."
)


def taught_of(rollouts: Sequence[Rollouts], teacher: TeacherPrompts | None, text: AnswerText) -> Asked:
    """What the teacher of each row is asked in place of its prompt; None where that is the prompt, or where a `teacher` who
    is shown another right answer would be shown one, and there is none.
    """
    if teacher is not None:
        return [prompt for group in rollouts for prompt in _shown_right(group, teacher, text)]
    return [prompt for group in rollouts for prompt in [_ids(group.problem.teacher_prompt)] * len(group)]


def _shown_right(group: Rollouts, teacher: TeacherPrompts, text: AnswerText) -> Asked:
    prompts: Asked = [None] * len(group)
    if not group.solved:
        return prompts
    asked = group.problem.prompt, group.problem.columns
    texts = [text.of(*asked, group.row(row)) for row in range(len(group))]
    written = dict[str, NDArray[np.int32]]()
    for row, answer in enumerate(group.lengths.tolist()):
        if (right := group.right_beside(row, texts)) is None:
            continue
        try:
            if right not in written:
                written[right] = np.asarray(teacher.prompt(group.problem.columns, right)[0], np.int32)
            teacher.check(written[right], answer)
            prompts[row] = written[right]
        except BadRow:
            tell("not-taught", NOT_TAUGHT)
    return prompts


def _ids(tokens: Sequence[int] | None) -> NDArray[np.int32] | None:
    return None if tokens is None else np.asarray(tokens, np.int32)
