"""Over real tokenizers and templates: what is trained is what was sampled and observed, id by id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from episodes import RandomIds, ScriptedConfig, player, row, said
from ground.catalogue import TOKENIZERS
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.encoding.glue import Glue
from posttrain.environments.base import Start, Step, Turn
from posttrain.model.pretrained.tokenizer import read_tokenizer
from posttrain.rollout.engine import Sampling
from posttrain.settings.data import Encoding
from posttrain.train.collect.episodes.player import Asked

QUICK = ("smollm2-135m-instruct", "mistral-v3")  # to load
EACH = [pytest.param(name, marks=[pytest.mark.system] * (name not in QUICK)) for name in TOKENIZERS]
CONVERSATIONS = 250  # of each tokenizer, over 2,000 together
PIECES = (
    "it is 5",
    "",
    "\n\n",
    " x ",
    "é",
    "数",
    "🙂",
    "</s>",
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "[INST]",
    "<unk>",
    "\t<",
)


def observation(number: int, turn: int) -> str:
    draw = Random(f"{number}/{turn}")
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 6)))


def says(number: int, turns: int, turn: Turn) -> Step:
    return said(observation(number, turns), done=False)


@pytest.mark.parametrize("name", EACH)
def test_ids_are_those_that_were_sampled_and_observed(name: str, real_model: Callable[[str], Path]) -> None:
    tokenizer: Any = read_tokenizer(str(real_model(name)))
    encoding, ends = Encoding(special_tokens="text"), [tokenizer.eos_token_id]
    engine = RandomIds(len(tokenizer), ends)
    config = ScriptedConfig(says=says, max_turns=3, turn_tokens=8)
    plays, glue = player(config, engine, tokenizer, encoding, ends), Glue(tokenizer, encoding, ends)
    prompt, _ = Encoder(tokenizer, encoding, ends).prompt({"prompt": "Say."})
    columns = [row({"number": i}, Start(config.opening)) for i in range(CONVERSATIONS)]
    episodes = plays.play([Asked(i, prompt, one, 1) for i, one in enumerate(columns)], Sampling(max_tokens=24))
    plays.close()
    special = set(tokenizer.all_special_ids)
    inserted = 0
    for number, [episode] in enumerate(episodes):
        assert episode.end in ("max_turns", "max_tokens"), episode.fault
        ids, logprobs, own = episode.row(0)
        sampled = [one.ids for one in episode.played]
        assert all(tuple(ids.tolist()) in engine.said for ids in sampled)
        assert np.array_equal(ids[own], np.concatenate(sampled))
        assert (logprobs[own] == -0.5).all() and not logprobs[~own].any()
        for turn, (one, after) in enumerate(zip(episode.played, episode.played[1:], strict=False), 1):
            expected = glue.of(int(one.ids[-1]), [{"role": "user", "content": observation(number, turn)}])
            assert one.glue.tolist() == expected.ids and len(after.ids)
            plain = glue.of(int(one.ids[-1]), [{"role": "user", "content": "x"}])
            assert sum(i in special for i in expected.ids) == sum(i in special for i in plain.ids)
            inserted += observation(number, turn).count("<|im_end|>")
    assert inserted > CONVERSATIONS // 10


@pytest.mark.parametrize("name", EACH)
def test_a_played_conversation_is_what_its_template_writes(name: str, real_model: Callable[[str], Path]) -> None:
    """Where the model ends its turn as its template does, what follows are ids of the whole, encoded once."""
    tokenizer: Any = read_tokenizer(str(real_model(name)))
    template, ends = Encoding(), [tokenizer.eos_token_id]
    glue = Glue(tokenizer, template, ends)
    talk = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]
    more = [{"role": "user", "content": "And 3+3?"}]
    whole, _ = Encoder(tokenizer, template, ends).prompt({"prompt": [*talk, *more]})
    glued = glue.of(glue.ends[-1], more).ids
    assert whole[-len(glued) - 1 :] == [glue.ends[-1], *glued]
