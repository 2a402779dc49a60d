"""One path for what is trained and what is asked: tokenizers and templates of every shape, and all that TRL ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from asked import check_asked, talk
from families import FAMILIES, THOUGHT, THOUGHTFUL
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.rows import BadRow
from posttrain.model.load import make_tokenizer
from posttrain.model.proofs.tokens import tokenizer_fault
from posttrain.settings.data import Encoding

TEMPLATES = sorted(Path(trl.__file__).parent.joinpath("chat_templates").glob("*.jinja"))
SHIPPED = [path for path in TEMPLATES if not path.stem.endswith("_training")]
THINKS = {"deepseek_r1_distill", "deepseekv3"} | {f"nemotron_3{x}" for x in ("_5_lightning", "_nano", "_super", "_ultra")}
"""Their generation prompts open <think>, so that an answer without a thought is refused."""
CLOSES = {"qwen3_5_nothink"}
"""Its generation prompt closes thinking, so that an answer with a thought is refused."""


def encoder(tokenizer: Any, **options: Any) -> Encoder:
    return Encoder(tokenizer, Encoding.model_validate(options), [tokenizer.eos_token_id])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("thinks", [False, True])
def test_what_stands_before_an_answer_is_what_is_asked(name: str, thinks: bool) -> None:
    made = FAMILIES[name]()
    encode = encoder(made)
    thought = THOUGHT.replace(" add", " is") if thinks else ""
    messages = talk("it is 2+2?", f"{thought}it is 4.", "is it 3+3?", f"{thought} it", "it", f"{thought}is it 9")
    if name in THOUGHTFUL and not thinks:
        with pytest.raises(BadRow, match="asks for <think>"):
            encode.demonstrations({"messages": messages})
        return
    found = check_asked(encode, messages)
    for ids, content in zip(found, ("4.", "it", "it is 9"), strict=True):
        assert made.decode(ids, skip_special_tokens=True).rstrip().endswith(content[-2:])
        assert len(set(ids[-1:]) & {made.eos_token_id, made.convert_tokens_to_ids("<|im_end|>"), 4}) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_with_its_completion_is_asked_as_it_is_trained(name: str) -> None:
    encode = encoder(FAMILIES[name]())
    for columns in (
        {"prompt": "it is 2+2?", "completion": THOUGHT + "it is 4."},
        {"prompt": talk("is it?", THOUGHT + "it", "it is"), "completion": THOUGHT + "is 4"},
        {"prompt": talk("is it?", "it is"), "completion": " 4."},
    ):
        row = encode.demonstration(columns)[0]
        assert row.prompt.tolist() == encode.prompt(columns)[0] and row.mask.all()
    plain = encoder(FAMILIES[name](), chat_template=False)
    columns = {"prompt": "it is 2+2=", "completion": "4 it is"}
    assert plain.demonstration(columns)[0].prompt.tolist() == plain.prompt(columns)[0]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_template_that_trl_ships_asks_as_it_trains_or_refuses(path: Path) -> None:
    made = make_tokenizer("bytes")
    made.bos_token = "<|system|>"
    made.chat_template = path.read_text(encoding="utf-8")
    encode = encoder(made)
    for thought in ("", THOUGHT):
        messages = talk("2+2?", f"{thought}It is 4.", "And 3+3?", f"{thought}6.")
        if path.stem in (CLOSES if thought else THINKS):
            with pytest.raises(BadRow, match="asks"):
                encode.demonstrations({"messages": messages})
            continue
        for ids, content in zip(check_asked(encode, messages), ("It is 4.", "6."), strict=True):
            said = str(made.decode(ids))
            assert content in said and ("I add." in said) == bool(thought)
            assert "3+3" not in said and "user" not in said.replace("to=user", "").lower().replace("<|user|>", "")


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_the_same_after_saving_and_loading(name: str, tmp_path: Path) -> None:
    made = FAMILIES[name]()
    made.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_fault(made, tmp_path, []) is None
    columns = {"prompt": talk("is it?", "it", "it"), "completion": THOUGHT + "it\n is 4"}
    assert encoder(again).prompt(columns) == encoder(made).prompt(columns)
