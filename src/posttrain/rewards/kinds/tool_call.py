"""Calls of tools against those that are right, with what is wrong with a call told apart.

TL-Training: A Task-Feature-Based Framework for Training Large Language Models in Tool Use (arXiv:2412.15495): a call is worth

    1       right                                  -0.25   values of arguments alone are wrong
    -2      unparsable, or of an unknown tool      -1.5    of another tool that there is
    -1.8    hallucinated, redundant and missing arguments
    -1.3    hallucinated ones, and redundant or missing ones
    -1.0    redundant and missing ones
    -0.8    hallucinated ones                      -0.5    redundant ones, or missing ones

An argument is hallucinated that the tool does not have, redundant that it has and the right call has not. Ours: several calls
(the paper's rows have one), in whatever order, each compared with the right one that it is most like; a right one that is
left is worth -2, a call too many -1.5, or -2 where its tool is unknown; the score is the mean. An argument of null is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import Grade, Verdict
from posttrain.rewards.kinds._verified import OfAnswers
from posttrain.rewards.options import Judged
from posttrain.rewards.reading.arguments import Call, by_name
from posttrain.rewards.reading.calls import FORMATS, Read, unthought
from posttrain.rewards.values import Refused

RIGHT, UNREADABLE, OTHER_TOOL, OTHER_VALUES = 1.0, -2.0, -1.5, -0.25
Schemas = Mapping[str, Mapping[str, Any]]


class ToolCallReward(OfAnswers):
    """Calls of tools against the column `calls`, by what is wrong with them."""

    columns = ("calls",)
    name: Literal["tool_call"] = "tool_call"
    format: Literal["hermes", "qwen3_xml", "pythonic", "react", "tagged"]
    """How the policy writes calls."""
    tools: str = "tools"
    """The column of the tools that may be called, JSON schemas, where rows have it; another one, where the chat template has
    no place for tools, must be there."""

    def grader(self) -> CallsGrader:
        """Nothing is started."""
        return CallsGrader(FORMATS[self.format], reads_cut_off=self.reads_cut_off)

    def build(self, judged: Judged) -> ToolCall:
        """Nothing is started."""
        return ToolCall(FORMATS[self.format], self.tools, reads_cut_off=self.reads_cut_off)


class ToolCall:
    """A `Reward`: the mean score of the calls in a completion, after its thinking; right where all are.

    Args:
        read: a format's reader.
        tools: the column of those that may be called.
        reads_cut_off: completions that were cut off are read too; else they have no calls.
    """

    name = "tool_call"

    def __init__(self, read: Read, tools: str = "tools", *, reads_cut_off: bool = False) -> None:
        self._read, self._tools, self._reads_cut_off = read, tools, reads_cut_off
        self.columns = ("calls",) if tools == "tools" else ("calls", tools)

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        right, tools = calls_of(group.columns["calls"]), tools_of(group.columns.get(self._tools))
        return [
            self._one(text if end or self._reads_cut_off else "", right, tools)
            for text, end in zip(group.completions, group.finished, strict=True)
        ]

    def _one(self, text: str, right: Sequence[Call], tools: Mapping[str, Schemas]) -> Judgement:
        calls = self._read(unthought(text)[1])
        score = scored(calls, right, tools)
        return Judgement(score, score == RIGHT, _said(calls))

    def close(self) -> None:
        """Nothing was started."""


class CallsGrader:
    """A `Grader`: right where a completion calls what the reference does, JSON text of calls, in whatever order.

    Args:
        read: a format's reader.
        reads_cut_off: as for `ToolCall`.
    """

    def __init__(self, read: Read, *, reads_cut_off: bool = False) -> None:
        self._read, self.reads_cut_off = read, reads_cut_off

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares the calls."""
        try:
            right = calls_of(answer)
        except Refused:
            return Grade(Verdict.BAD_REFERENCE, None)
        calls = self._read(unthought(completion)[1])
        if right and not any(call.fault is None for call in calls):
            return Grade(Verdict.UNPARSABLE, None)
        return Grade(Verdict.RIGHT if scored(calls, right, {}) == RIGHT else Verdict.WRONG, _said(calls))

    def answer(self, completion: str) -> str | None:
        """The calls, in an order of their own."""
        return _said(self._read(unthought(completion)[1]))

    def equal(self, first: str, second: str) -> bool:
        """Whether both call the same."""
        return self.answer(first) == self.answer(second)

    def close(self) -> None:
        """Nothing was started."""


def scored(calls: Sequence[Call], right: Sequence[Call], tools: Mapping[str, Schemas]) -> float:
    """The mean score of calls against the right ones: the pairs that are most alike are found first.

    Args:
        calls: of a completion.
        right: those that are wanted; where it is none, no call is right.
        tools: of each tool that may be called the schemas of its parameters. Where there are none the right calls' are known,
            with the arguments that these have.
    """
    known = {call.name: {} for call in right} | dict(tools)
    pairs = sorted((-compared(call, other, known), j, i) for i, call in enumerate(calls) for j, other in enumerate(right))
    scores, taken, met = list[float](), set[int](), set[int]()
    for score, j, i in pairs:
        if i not in taken and j not in met:
            scores.append(-score)
            taken.add(i)
            met.add(j)
    scores += [UNREADABLE] * (len(right) - len(met))
    left = [call for i, call in enumerate(calls) if i not in taken]
    scores += [UNREADABLE if call.fault is not None or call.name not in known else OTHER_TOOL for call in left]
    return sum(scores) / len(scores) if scores else RIGHT


def compared(call: Call, right: Call, known: Mapping[str, Schemas]) -> float:
    """The score of one call against one that is right."""
    if call.fault is not None or call.name not in known:
        return UNREADABLE
    if call.name != right.name:
        return OTHER_TOOL
    schemas, wanted = known[right.name], _given(right.arguments)
    shapes = {name: {"type": "string" if isinstance(value, str) else "any"} for name, value in wanted.items()}
    given = _given(by_name(call.arguments, {**schemas, **shapes}))
    more = given.keys() - wanted.keys()
    hallucinated, missing = bool(more - schemas.keys()), bool(wanted.keys() - given.keys())
    others = bool(more & schemas.keys()) + missing
    if hallucinated:
        return (-0.8, -1.3, -1.8)[others]
    if others:
        return (-0.5, -1.0)[others - 1]
    return RIGHT if all(_same(given[name], value) for name, value in wanted.items()) else OTHER_VALUES


def calls_of(value: Any) -> list[Call]:
    """Calls of a column: {name, arguments} each, also under `function`; arguments and the whole also as JSON text.

    Raises:
        Refused: they are no such list.
    """
    listed = _json(value)
    listed = [listed] if isinstance(listed, Mapping) else listed
    if not isinstance(listed, (list, tuple)):
        raise Refused(f"the column calls holds {value!r:.60}, and a list of {{name: …, arguments: {{…}}}} is expected")
    return [_call(one) for one in listed]


def _call(given: Any) -> Call:
    said = given.get("function", given) if isinstance(given, Mapping) else {}
    name, arguments = (said.get("name"), _json(said.get("arguments") or {})) if isinstance(said, Mapping) else (None, None)
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping):
        raise Refused(f"the column calls holds {given!r:.60}, and {{name: …, arguments: {{…}}}} is expected")
    return Call(name, arguments)


def tools_of(value: Any) -> dict[str, Schemas]:
    """Of each tool of a row the schemas of its parameters: JSON schemas as templates are given them, or by argument; also as
    JSON text.

    Raises:
        Refused: they are no such list.
    """
    tools = dict[str, Schemas]()
    for one in _json(value) or ():
        said = one.get("function", one) if isinstance(one, Mapping) else None
        if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
            raise Refused(f"the column tools holds {one!r:.60}, and a JSON schema with a name is expected")
        parameters = said.get("parameters") or {}
        schemas = (parameters.get("properties") or {}) if "properties" in parameters else parameters
        tools[said["name"]] = {key: schema for key, schema in schemas.items() if isinstance(schema, Mapping)}
    return tools


def _json(value: Any) -> Any:
    """A value, or that as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _same(given: Any, right: Any) -> bool:
    """Whether two values are equal: numbers as numbers, text letter by letter but for white space at its ends."""
    if isinstance(given, str) and isinstance(right, str):
        return given.strip() == right.strip()
    if isinstance(given, Mapping) and isinstance(right, Mapping):
        one, other = _given(given), _given(right)
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(given, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(given) == len(right) and all(map(_same, given, right))
    return given == right and isinstance(given, bool) == isinstance(right, bool)


def _said(calls: Sequence[Call]) -> str | None:
    """Calls that could be read in a form in which equal ones are equal; None where there are none."""
    said = [[call.name, _given(call.arguments)] for call in calls if call.fault is None]
    return json.dumps(sorted(said, key=lambda one: json.dumps(one, sort_keys=True)), sort_keys=True) if said else None
