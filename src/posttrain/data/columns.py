"""What the columns of a row are for: which of them are read, which nothing reads, and which change what the row means and
cannot be honoured.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypeIs

from posttrain.data.rows import BadRow, DataReport
from posttrain.data.sources.record import Record
from posttrain.errors import DataError
from posttrain.settings.data import Encoding
from posttrain.settings.data.order import ByRule, CyclicalOrder
from posttrain.telling import tell

if TYPE_CHECKING:
    from posttrain.estimator.needs import Needs

Kind = Literal["demonstrations", "pairs", "crossed", "questions"]
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
LABELS = ("label", "kto_tag")
"""KTO's: false where the completion is one that is not wanted."""
WEIGHTS = ("weight", "weights", "reward", "advantage", "forget")
"""What says what a row is worth, where an algorithm asks for it."""
KEY = "key"
"""In place of the weight of a span: its tokens weigh as many times as much as there are others for each, to a limit."""
DEMONSTRATIONS = ("demonstration", "completion", "messages")
"""What a question's demonstration is read from: the first that is there."""


def shown_by(needs: Needs, *, made: bool = False) -> tuple[str, ...]:
    """The columns that an algorithm has a question's demonstration from, or what is rejected in its place; none where they
    are `made` otherwise.
    """
    if not needs.own_demonstrations or made:
        return ()
    return ("rejected",) if needs.pairs is not None and needs.pairs.rule == "fixed_rejected" else DEMONSTRATIONS


def compared_by(needs: Needs, *, made: bool = False) -> tuple[str, ...]:
    """The columns of a question that its answers' rewards are compared with; none where they are `made` otherwise."""
    return ("value",) if needs.baseline == "value" and not made else ()


class TemplateFields(Mapping[str, Any]):
    """A row's columns as a template takes them: text and finite numbers; null is empty text.

    Its lookup raises BadRow: the column is missing, or is neither.
    """

    def __init__(self, columns: Mapping[str, Any], key: str) -> None:
        self._columns, self._key = columns, key

    def __getitem__(self, name: str) -> str | int | float:
        if name not in self._columns:
            raise BadRow(f"{self._key} names the column {name!r}, which the row does not have")
        value = self._columns[name]
        if value is None:
            return ""
        if isinstance(value, str) or (is_number(value) and math.isfinite(value)):
            return value
        kind = str(value) if is_number(value) else type(value).__name__
        raise BadRow(f"{self._key} takes text and numbers, and {name} is {kind}")

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def steps_of(demonstration: Any) -> list[str]:
    """The steps of a demonstration that is a list of them."""
    given: Any = demonstration if isinstance(demonstration, (list, tuple)) else ()
    return list(given) if all(isinstance(step, str) for step in given) else []


def is_number(value: Any) -> TypeIs[int | float]:
    """An integer or a float, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_of(value: Any, name: str, *, least: float | None = None) -> float:
    """A finite number, or its text, as tables hold it.

    Raises:
        BadRow: it is none, or less than the least.
    """
    try:
        number = float(value) if isinstance(value, str) or is_number(value) else None
    except ValueError:
        number = None
    wanted = "a finite number" if least is None else f"a finite number of at least {least:g}"
    if number is None or not math.isfinite(number) or (least is not None and number < least):
        raise BadRow(f"{name} must be {wanted}, not {value!r:.40}")
    return number


def keys_of(columns: Mapping[str, Any], order: ByRule | None) -> tuple[str | float, ...]:
    """What `data.order` reads of a row, its columns in their order.

    Raises:
        BadRow: a category is neither text nor a number, or a number is none, or may not be 0 and is.
    """
    if order is None:
        return ()
    categories = [columns.get(name) for name in order.categories]
    for name, value in zip(order.categories, categories, strict=True):
        if not isinstance(value, str) and not is_number(value):
            raise BadRow(f"data.order: {name} must be a category, text or a number, not {value!r:.40}")
    numbers = [number_of(columns.get(name), f"data.order: {name}") for name in order.numbers]
    if isinstance(order, CyclicalOrder) and numbers and numbers[0] <= 0:
        raise BadRow(f"data.order: {order.by} must be above 0, for rows are drawn with chances of 1 / {order.by}")
    return (*map(str, categories), *numbers)


@dataclass(frozen=True, slots=True)
class Use:
    """What the rows of a set are read for.

    needs: columns that rewards ask for, or that say what demonstrations are worth. demonstrated: the columns that a
    question's demonstration may stand in. anything: a reward of somebody's own may read any column. unwanted: demonstrations
    are what is not to be said; None: they are measured only.
    """

    kind: Kind
    config: Encoding
    needs: tuple[str, ...] = ()
    demonstrated: tuple[str, ...] = ()
    anything: bool = False
    unwanted: bool | None = False

    def columns(self, record: Record) -> dict[str, Any]:
        """The row's columns without those that another one takes the place of.

        Raises:
            BadRow: a column changes what the row means, and cannot be honoured; or two contradict each other.
        """
        read, given = self._read(record), record.columns
        for name in MEDIA:
            if _says_something(given.get(name)) and name not in read:
                raise BadRow(f"it has {name}, and only text is trained on; a source's unused: [{name}] takes the text alone")
        self._check_wanted(given)
        if _says_something(given.get("chat_template_kwargs")):
            raise BadRow("its chat_template_kwargs are not read; those of all rows are data.chat_template_kwargs")
        if _says_something(given.get("tools")) and not self.config.chat_template:
            raise BadRow("its tools need chat_template: true")
        if "instruction" in given and _says_something(given.get("input")) and "input" not in read:
            raise BadRow("its input, a part of its instruction, is not read: name it in prompt_template, or map no columns")
        if self.kind == "demonstrations" and "messages" in read and self.config.prompt_template != "{prompt}":
            tell("prompt-template", "data.prompt_template wraps the text of a prompt: rows of messages are read without it.")
        taken = {name for name in ("messages", "completion", "text") if given.get(name) is None or name not in read}
        return {name: value for name, value in given.items() if name not in taken or self.kind != "demonstrations"}

    def _check_wanted(self, given: Mapping[str, Any]) -> None:
        """That what a label says of a demonstration is what is done with it."""
        lowered = self.unwanted or ("forget" in self.needs and str(given.get("forget")).lower() in ("true", "1"))
        others = {*names_of(self.config.prompt_template), *self.needs}
        said = {name: str(given.get(name)).strip().lower() for name in LABELS if name not in others}
        for name, value in said.items() if self.kind == "demonstrations" else ():
            if value == "false" and not lowered and self.unwanted is not None:
                raise BadRow(f"its {name} is false: its completion is not wanted, and a demonstration is imitated")
            if value == "true" and lowered:
                raise BadRow(f"its {name} is true: its completion is wanted, and it would be made less likely")

    def unread(self, record: Record) -> list[str]:
        """Columns with a value that nothing reads."""
        if self.anything:
            return []
        known = self._read(record) | set(record.mapped.values()) | record.read
        return [name for name, value in record.columns.items() if value is not None and name not in known]

    def _read(self, record: Record) -> set[str]:
        given = {name for name, value in record.columns.items() if value is not None}
        tools = {"tools"} if self.config.chat_template else set[str]()
        asked = {"prompt", *tools, *names_of(self.config.prompt_template)}
        if self.kind == "pairs":
            return asked | {"chosen", "rejected", *self.needs}
        if self.kind == "crossed":
            from posttrain.estimator.needs import CROSSED  # with torch, which recipes do not import

            return asked - {"prompt"} | {*CROSSED}
        if self.kind == "demonstrations":
            if _is_text(given, record):
                return {"text", "text_prefix", "text_corruption", *self.needs}
            whole = {"messages", *tools} if self._is_conversation(given, record) else asked | {"completion"}
            return whole | {*self.needs} | ({*LABELS} if self.unwanted is not False or "forget" in self.needs else set[str]())
        shown = next(([name] for name in self.demonstrated if name in given), [])
        others = ["solution", "calls"] if "answer" in self.needs and "answer" not in given else []
        return asked | {*self.needs, *shown, *others}

    def _is_conversation(self, given: set[str], record: Record) -> bool:
        """Whether a demonstration is its messages, and not its prompt and completion."""
        if "messages" not in given or not {"prompt", "completion"} <= given:
            return "messages" in given
        named = {name for name in ("messages", "completion") if name in record.mapped}
        if len(named) != 1:
            raise BadRow(
                "it has messages, and a prompt and a completion beside them: name the one to be read in columns, such as "
                "{messages: messages}, or the other in unused"
            )
        return named == {"messages"}


def _is_text(given: set[str], record: Record) -> bool:
    """Whether a demonstration is its text alone: it is nothing else, or columns names it and nothing else."""
    if "text" not in given or [name for name in ("text", "messages", "prompt", "completion") if name in record.mapped] == [
        "text"
    ]:
        return "text" in given
    if len(half := given & {"prompt", "completion"}) == 1 and "messages" not in given:
        raise BadRow(
            f"it has a text and a {half.pop()}: which is learnt? Name the text in columns, {{text: text}}, or the other half"
        )
    return not half and "messages" not in given


@cache
def names_of(template: str) -> tuple[str, ...]:
    """The columns that a template names."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def check_columns(record: Record, wanted: Sequence[tuple[str, ...]]) -> None:
    """That a set's first row has the columns of one of the ways in which it may be read.

    Raises:
        DataError: names what is missing.
    """
    if any(all(name in record.columns for name in names) for names in wanted):
        return
    if "text" in record.columns:
        raise DataError(
            f"{record.where}: the row has a text, of which nothing says what is asked: texts are for algorithms over "
            "demonstrations, such as sft. Give a prompt, and what else the algorithm reads."
        )
    needed = " or ".join(" + ".join(names) for names in wanted)
    begun = [names for names in reversed(wanted) if not record.columns.keys().isdisjoint(names)] or wanted[::-1]
    nearest = min(begun, key=lambda names: sum(name not in record.columns for name in names))
    lacking = [name for names in (nearest, *begun) for name in names if name not in record.columns]
    sought = next((name for name in lacking if name in record.mapped), None)
    name_them = f"Name them in the recipe: columns: {{{lacking[0]}: <your column>}}."
    if "value" in lacking:
        name_them = (
            "What questions are worth is made of sampled answers by data.collect: {value: {k: 8}}, or is a column value."
        )
    raise DataError(
        f"{record.where}: the columns {needed} are needed; the row has {', '.join(record.columns) or 'none'}. "
        + (f"columns looks for {sought} in {record.mapped[sought]}, which it does not have." if sought else name_them)
    )


def tell_unread(label: str, reports: Sequence[DataReport]) -> None:
    """Tells of the columns of a set that nothing reads, in none of the ways that it is read."""
    first, *others = reports
    unread = {name: rows for name, rows in first.unread.items() if all(name in other.unread for other in others)}
    named = ", ".join(f"{name} ({_share(rows, first.seen)} rows)" for name, rows in unread.items())
    worth = [name for name in WEIGHTS if name in unread]
    alike = f" What rows are worth by {', '.join(worth)} the algorithm, with its options, does not ask." if worth else ""
    if unread:
        tell("unread-columns", f"{label}: nothing reads the columns {named}; name them in unused if that is right.{alike}")


def _share(rows: int, seen: int) -> str:
    return "all" if rows == seen else f"{rows} of {seen}"


def _says_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {}, ())
