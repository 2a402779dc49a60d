"""One conversation with an environment, turn by turn, as ids and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.environments.base import FAILED, End, Step, Turn

Ids = NDArray[np.int32]
NOTHING: Ids = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A turn of the policy: its ids, the log-prob of each, what it said, and what came of it. `glue` are the ids of others
    that follow, none after the last turn; `cut` says that what was said in them was cut.
    """

    ids: Ids
    logprobs: NDArray[np.float32]
    turn: Turn
    step: Step
    glue: Ids = field(default_factory=lambda: NOTHING)
    cut: bool = False

    @property
    def failed_call(self) -> bool:
        """One of its calls cannot be read, or what answered it says that it failed."""
        unread = any(call.fault is not None for call in self.turn.calls)
        return unread or any(message.get("error", False) for message in self.step.messages)


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """What was played, why it ended, and of one that failed the reason. `version` is that of the weights that played. It is
    `cut_off` where the last turn found no more room in the episode or the context, rather than in its own limit. It was
    `retried` so often: played again from its beginning because it had failed.
    """

    played: tuple[Played, ...]
    end: End
    version: int
    fault: str | None = None
    cut_off: bool = False
    retried: int = 0

    @property
    def failed(self) -> bool:
        """Nobody's answer."""
        return self.end in FAILED

    @property
    def tokens(self) -> int:
        """That the policy wrote."""
        return sum(len(one.ids) for one in self.played)

    @property
    def own(self) -> Ids:
        """All ids that the policy wrote."""
        return np.concatenate([NOTHING, *(one.ids for one in self.played)])

    @property
    def last_ids(self) -> Ids:
        """Those of the last turn."""
        return self.played[-1].ids if self.played else NOTHING

    def before_last(self, prompt: Sequence[int]) -> Ids:
        """All ids before the last turn."""
        parts = [part for one in self.played[:-1] for part in (one.ids, one.glue)]
        return np.concatenate([np.asarray(prompt, np.int32), *parts])

    @property
    def last(self) -> Turn:
        """The last turn; an empty one where there is none."""
        return self.played[-1].turn if self.played else Turn("", finish="length")

    def row(self, filler: int) -> tuple[Ids, NDArray[np.float32], NDArray[np.bool_]]:
        """Ids, log-probs (0 where others wrote), and where the policy wrote. What nobody began is the filler alone."""
        parts = [part for one in self.played for part in (one.ids, one.glue)]
        if not sum(map(len, parts)):
            return np.array([filler], np.int32), np.zeros(1, np.float32), np.zeros(1, np.bool_)
        own = np.concatenate([np.full(len(part), i % 2 == 0) for i, part in enumerate(parts)])
        logprobs = [part for one in self.played for part in (one.logprobs, np.zeros(len(one.glue), np.float32))]
        return np.concatenate(parts), np.concatenate(logprobs), own

    def failed_calls(self) -> NDArray[np.bool_]:
        """Where in its `row` turns of the policy stand whose calls failed."""
        found = np.repeat(
            [failed for one in self.played for failed in (one.failed_call, False)],
            [len(part) for one in self.played for part in (one.ids, one.glue)],
        )
        return found if len(found) else np.zeros(1, np.bool_)

    @property
    def transcript(self) -> str:
        """All of it as text, others' words under their roles."""
        said = list[str]()
        for one in self.played:
            said.append(one.turn.text if one.turn.thinking is None else f"{one.turn.thinking}{one.turn.text}")
            said += [f"[{message.get('name') or message['role']}] {message['content']}" for message in one.step.messages]
        return "\n".join(said)

    def shown(self) -> dict[str, Any]:
        """Plain data, for rewards, files and people."""
        return {
            "turns": [_shown(one) for one in self.played],
            "end": self.end,
            **({"fault": self.fault} if self.fault is not None else {}),
            **({"retried": self.retried} if self.retried else {}),
        }


def _shown(one: Played) -> dict[str, Any]:
    said: Sequence[Any] = [dict(message) for message in one.step.messages]
    calls = [
        {"name": call.name, "arguments": dict(call.arguments), **({"fault": call.fault} if call.fault else {})}
        for call in one.turn.calls
    ]
    return {
        "text": one.turn.text,
        **({"thinking": one.turn.thinking} if one.turn.thinking is not None else {}),
        **({"calls": calls} if calls else {}),
        "others": said,
        "reward": one.step.reward,
        "info": dict(one.step.info),
        "tokens": len(one.ids),
        "finish": one.turn.finish,
    }
