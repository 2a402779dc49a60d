"""What a recipe's data became: the sets of a run, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.data.overlap import Overlap
from posttrain.data.rows import DataReport, Example, Problem, Row
from posttrain.data.rows.stream import Stream
from posttrain.data.rows.together import by_source, digest_of, longest_of
from posttrain.model.proofs.tokens import ROWS


@dataclass(slots=True)
class Sets:
    """All that a recipe's data became: what is trained on, what is evaluated, and what was left out of each.

    `candidates` are questions that are sampled before training, where the recipe says so. `demonstrations` are those of a
    set of their own. `kept_rows` are what update rules learn from, by the rules' names. `transforms` says what was done to
    rows before they were encoded, and in which sets; `kept`, which of them lie on disk, and where.
    """

    train: Sequence[Example] | Sequence[Problem]
    candidates: list[Problem] = field(default_factory=list[Problem])
    demonstrations: list[Example] = field(default_factory=list[Example])
    kept_rows: dict[str, list[Example]] = field(default_factory=dict[str, list[Example]])
    held_out: dict[str, list[Example]] = field(default_factory=dict[str, list[Example]])
    problems: dict[str, list[Problem]] = field(default_factory=dict[str, list[Problem]])
    reports: dict[str, DataReport] = field(default_factory=dict[str, DataReport])
    overlaps: list[Overlap] = field(default_factory=list[Overlap])
    transforms: list[str] = field(default_factory=list[str])
    kept: dict[str, str] = field(default_factory=dict[str, str])
    stream: Stream | None = None
    """What is trained on, where it is read as it comes; `train` are then its first rows."""

    @property
    def forms(self) -> dict[str, Any]:
        """Rows of the plan: how files are written, where that is in no columns of ours, what is done to their rows, and
        which lie on disk.
        """
        forms = {name: dict(report.forms) for name, report in self.reports.items() if report.forms}
        return {
            **({"formats of the rows": forms} if forms else {}),
            **({"transforms": ", ".join(self.transforms)} if self.transforms else {}),
            **({"rows on disk": self.kept} if self.kept else {}),
        }

    @property
    def shared(self) -> dict[str, Any]:
        """Of what evaluation sets share with training a row of the plan."""
        found = {
            one.name: f"{one.exact} the same, {one.ngram} the same or with {one.words} words in common"
            for one in self.overlaps
        }
        return {"questions of evaluation that stand in training": found} if found else {}

    @property
    def digests(self) -> dict[str, str]:
        """Of each set, and of each source of a mixture."""
        train = by_source(self.train)
        mixed = {f"data.train.mix.{name}": rows for name, rows in train.items() if name}
        sets: dict[str, Sequence[Any]] = {**(mixed or {"data.train": train.get("", [])})}
        sets |= {"data.demonstrations": self.demonstrations}
        sets |= {f"training.update.{name}.of": rows for name, rows in self.kept_rows.items()}
        sets |= {f"data.eval.{name}": rows for name, rows in self.held_out.items()}
        sets |= {f"the questions of data.eval.{name}": rows for name, rows in self.problems.items()}
        return {name: digest_of(rows) for name, rows in sets.items() if rows}

    def longest(self, answer: int, *, shown: int) -> dict[str, int]:
        """Tokens of the longest row, and of the longest prompt, as student or teacher read them, where answers have so many
        tokens, of which so many are `shown` to the teacher.
        """
        train: Any = self.train
        questions: Sequence[Problem] = train if isinstance(train[0], Problem) else ()
        read = [longest_of(rows) for rows in (() if questions else train, self.demonstrations, *self.kept_rows.values())]
        asked = [max(len(one.prompt), len(one.teacher_prompt or ()) + shown) for one in questions]
        longest = max([row for row, _ in read] + [prompt + answer for prompt in asked])
        if self.stream is not None:
            return {"longest": self.stream.longest, "prompt": self.stream.longest - 1}
        prompt = min(max([prompt for _, prompt in read] + asked), longest - 1)
        return {"longest": longest, "prompt": prompt}

    @property
    def size(self) -> int | str:
        """Rows that are trained on, for the plan."""
        if self.stream is None:
            return len(self.train)
        return f"not known: they are encoded as they come, by {self.stream.block:,}, which are each in an order of their own"

    @property
    def longest_question(self) -> int:
        """Tokens of the longest prompt that the student is asked."""
        return max((len(one.prompt) for one in self.train if isinstance(one, Problem)), default=0)

    @property
    def tools(self) -> Any:
        """Those that the first question with tools may call; None where none has any."""
        every = [self.train, *self.problems.values()]
        asked = (one.columns for rows in every for one in rows if isinstance(one, Problem))
        return next((columns["tools"] for columns in asked if columns.get("tools")), None)

    @property
    def first_rows(self) -> list[list[int]]:
        """Token ids of the first rows, on which tokenizers and models that are saved are tried."""
        first = [one.rows[0] if isinstance(one, Example) else one for one in self.train[:ROWS]]
        return [[*one.prompt.tolist(), *one.completion.tolist()] if isinstance(one, Row) else [*one.prompt] for one in first]
