"""What is logged of episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from posttrain.train.collect.episodes.episode import Episode


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Turns and others' tokens an episode; shares of why they end, of those that failed and of those that were played again
    for they had failed; calls a turn, those that could not be read, and turns of which one failed; turns that were cut off,
    and observations that were cut. Nothing where there is no environment.
    """
    if not episodes:
        return {}
    number, turns = len(episodes), [len(one.played) for one in episodes]
    played = [one for episode in episodes for one in episode.played]
    calls = [call for one in played for call in one.turn.calls]
    failed = sum(one.failed_call for one in played)
    ends = Counter(one.end for one in episodes)
    return {
        "env/turns": sum(turns) / number,
        "env/turns/max": float(max(turns)),
        **{f"env/end/{end}": count / number for end, count in sorted(ends.items())},
        "env/turns_cut_off": sum(one.turn.finish == "length" for one in played) / max(len(played), 1),
        "env/faults": sum(one.failed for one in episodes) / number,
        "env/retried": sum(one.retried > 0 for one in episodes) / number,
        "env/observation_tokens": sum(len(one.glue) for one in played) / number,
        "env/observations_cut": sum(one.cut for one in played) / max(len(played), 1),
        **({"env/failed_calls": failed / len(played)} if calls or failed else {}),
        **({"env/calls": len(calls) / len(played)} if calls else {}),
        **({"env/invalid_calls": sum(call.fault is not None for call in calls) / len(calls)} if calls else {}),
    }
