"""What rows show: before each answer what was asked, and the answer as text; masks as ⟦…⟧."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.data.encoding.encoder import Encoder
from posttrain.data.rows import Row


def talk(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of a user and the assistant, after one of the system where there is one."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


def answers(rows: Sequence[Row]) -> list[tuple[list[int], list[int]]]:
    """The context and the ids of each learnt answer: a run of the mask."""
    found = list[tuple[list[int], list[int]]]()
    for row in rows:
        ids, mask = [*row.prompt.tolist(), *row.completion.tolist()], [False] * len(row.prompt) + row.mask.tolist()
        starts = [i for i in range(len(ids)) if mask[i] and not mask[i - 1]]
        for start in starts:
            stop = next((i for i in range(start, len(ids)) if not mask[i]), len(ids))
            found.append((ids[:start], ids[start:stop]))
    return found


def check_asked(encoder: Encoder, messages: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> list[list[int]]:
    """That each learnt answer stands after what is asked when the messages before it are the prompt. Gives the answers."""
    rows, _ = encoder.demonstrations({"messages": messages, **(more or {})})
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    found = answers(rows)
    assert len(found) == len(turns)
    for turn, (context, _) in zip(turns, found, strict=True):
        assert context == encoder.prompt({"prompt": messages[:turn], **(more or {})})[0]
    return [ids for _, ids in found]


def masked(tokenizer: Any, rows: Sequence[Row]) -> list[str]:
    """Rows as text, with ⟦ ⟧ around what carries loss."""
    shown = []
    for row in rows:
        text, done, learnt = "", "", False
        ids, mask = [*row.prompt.tolist(), *row.completion.tolist()], [False] * len(row.prompt) + row.mask.tolist()
        for i, carries in enumerate([*mask, False]):
            if carries != learnt:
                before = tokenizer.decode(ids[:i])
                text, done, learnt = text + before[len(done) :] + ("⟦" if carries else "⟧"), before, carries
        text += tokenizer.decode(ids)[len(done) :]
        shown.append(text.replace("\n", "⏎"))
    return shown
