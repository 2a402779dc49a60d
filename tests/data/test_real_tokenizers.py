"""Real tokenizers with their templates: what is trained is what is asked, and the masks of `masks.txt`, read by hand.

`python tests/data/test_real_tokenizers.py` writes masks.txt anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

from asked import check_asked, masked, talk  # noqa: E402
from families import THOUGHT  # noqa: E402
from ground.catalogue import TOKENIZERS, finished  # noqa: E402
from posttrain.data.encoding.encoder import Encoder  # noqa: E402
from posttrain.data.rows import BadRow  # noqa: E402
from posttrain.errors import SetupError  # noqa: E402
from posttrain.model.pretrained.tokenizer import read_tokenizer  # noqa: E402
from posttrain.settings.data import Encoding  # noqa: E402

MASKS = HERE / "masks.txt"
THINKS = ("deepseek-v3", "deepseek-r1-distill")  # they ask for a thought, so that an answer without one is refused
CLOSES = ("qwen3.5-nothink",)  # it asks for none, so that an answer with one is refused

QUICK = ("smollm2-135m-instruct", "mistral-v3")  # to load
EACH = [pytest.param(name, marks=[pytest.mark.system] * (name not in QUICK)) for name in TOKENIZERS]


def conversations(name: str) -> list[list[dict[str, str]]]:
    plain, thought = talk("2+2?", "It is 4.", "And 3+3?", "6."), talk("2+2?", f"{THOUGHT}4.", "3+3?", f"{THOUGHT}6.")
    return [plain] * (name not in THINKS) + [thought] * (name not in CLOSES)


def encoder(tokenizer: Any, **options: Any) -> Encoder:
    return Encoder(tokenizer, Encoding.model_validate(options), [tokenizer.eos_token_id])


def shown(name: str, tokenizer: Any) -> list[str]:
    lines = [f"# {name}"]
    for messages in conversations(name):
        lines += masked(tokenizer, encoder(tokenizer).demonstrations({"messages": messages})[0])
    return lines


@pytest.mark.parametrize("name", EACH)
def test_what_is_trained_is_what_is_asked(name: str, real_model: Callable[[str], Path], tmp_path: Path) -> None:
    made = read_tokenizer(str(real_model(name)))
    encode = encoder(made)
    for messages in conversations(name):
        for ids, content in zip(check_asked(encode, messages), ("4.", "6."), strict=True):
            said = made.decode(ids[:-1]).strip()
            assert said.endswith(content) and ids[-1] in made.added_tokens_decoder
    refused = talk("2+2?", f"{THOUGHT}4." if name in CLOSES else "4.")
    if name in (*THINKS, *CLOSES):
        with pytest.raises(BadRow, match="asks"):
            encode.demonstrations({"messages": refused})
    masks = MASKS.read_text(encoding="utf-8").strip().split("\n\n")
    assert "\n".join(shown(name, made)) in masks

    completion = THOUGHT + "4." if name in THINKS else "4."
    said = {"prompt": f"is {made.eos_token} it?", "completion": completion}
    row, notes = encode.demonstration(said)
    assert row.prompt.tolist() == encode.prompt(said)[0] and "special_tokens_as_text" in dict(notes)
    clean, _ = encode.demonstration({"prompt": "is x it?", "completion": completion})
    assert row.prompt.tolist().count(made.eos_token_id) == clean.prompt.tolist().count(made.eos_token_id)
    assert f"is {made.eos_token} it?" in made.decode(row.prompt.tolist()).replace("  ", " ")

    made.save_pretrained(tmp_path)
    again = encoder(read_tokenizer(str(tmp_path)))
    assert again.prompt({"prompt": "2+2?\n  x"}) == encode.prompt({"prompt": "2+2?\n  x"})


def test_mistrals_own_form_is_refused_by_the_name_of_its_class(real_model: Callable[[str], Path]) -> None:
    with pytest.raises(SetupError, match="MistralCommonBackend"):
        read_tokenizer(str(real_model("mistral-tekken")))


if __name__ == "__main__":
    blocks = ["\n".join(shown(name, read_tokenizer(str(finished(name))))) for name in TOKENIZERS]
    MASKS.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
