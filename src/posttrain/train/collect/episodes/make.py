"""The player of a run."""

from __future__ import annotations

from typing import Any

from posttrain.data.answers import AnswerText
from posttrain.data.encoding.glue import Glue
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Sessions
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rollout.engine import RolloutEngine
from posttrain.settings.data import Encoding
from posttrain.train.collect.episodes.player import Player


def make_player(
    config: EnvironmentConfig,
    engine: RolloutEngine,
    model: Any,
    tokenizer: Any,
    encoding: Encoding,
    *,
    served: int | None = None,
    tools: Any = None,
    lockstep: bool = False,
) -> Player:
    """Of an environment, and the model that it is played with.

    Args:
        config: the environment.
        engine: samples turns.
        model: that is trained.
        tokenizer: of the model.
        encoding: the templates of the data.
        served: the engine's own context, where it is smaller than the model's.
        tools: of the tasks, where there are any.
        lockstep: all ranks call the engine equally often.

    Raises:
        SetupError: the environment does not start, or the chat template cannot be appended to.
    """
    glue = Glue(
        tokenizer,
        encoding,
        eos_ids(model, tokenizer),
        before=config.before,
        after=config.after,
        limit=config.observation_tokens,
    )
    glue.check(tools=tools)
    context = min((limit for limit in (context_of(model), served) if limit is not None), default=None)
    return Player(engine, Sessions.of(config), glue, AnswerText(tokenizer), config, context=context, lockstep=lockstep)
