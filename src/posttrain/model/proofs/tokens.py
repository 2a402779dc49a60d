"""The proof of a tokenizer: what AutoTokenizer reads from its folder gives the ids that it gives itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

from posttrain.model.proofs.disk import files

TEXT = (
    'Two  spaces,\ta tab,\n\nempty lines: 2 + 4 = 6.\nit\'s [INST] 1,234.50 </s> <|im_end|> {"a": [1]} \\frac{1}{2} '
    "Naïve, 日本語, кот, 🙂. "
)
ROWS, LENGTH = 8, 256  # of the data's first rows, and tokens of each


def round_trip_fault(tokenizer: Any, config: Any, rows: Sequence[Sequence[int]]) -> str | None:
    """What would be another tokenizer if this one were saved beside the config and read again, or None."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        return tokenizer_fault(tokenizer, Path(folder), rows)


def tokenizer_identity(tokenizer: Any) -> str:
    """SHA-256 of all that is saved of it, which `round_trip_fault` proves to give the ids that it gives."""
    known = hashlib.sha256()
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in files(Path(folder)):
            for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
                known.update(len(part).to_bytes(8, "little") + part)
    return known.hexdigest()


def tokenizer_fault(tokenizer: Any, folder: Path, rows: Sequence[Sequence[int]]) -> str | None:
    """The first difference between a tokenizer and what was saved of it, or None.

    Args:
        tokenizer: as it is used.
        folder: with it and its model's config, of which AutoTokenizer takes the class.
        rows: token ids, whose text is tried beside a fixed one.
    """
    own_code = type(tokenizer).__module__.startswith("transformers_modules")
    try:
        again = AutoTokenizer.from_pretrained(folder, trust_remote_code=own_code)
    except Exception as error:  # whatever a tokenizer's class raises
        return f"AutoTokenizer cannot read it: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    for text in _texts(tokenizer, rows):
        for special in (False, True):
            here, there = (one(text, add_special_tokens=special, verbose=False).input_ids for one in (tokenizer, again))
            if here != there:
                at = next((i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), len(there))
                return (
                    f"AutoTokenizer reads it as {type(again).__name__}, which gives other ids: {text[:40]!r} is "
                    f"{here[max(at - 2, 0) : at + 4]} at token {at}, and {there[max(at - 2, 0) : at + 4]} there"
                )
    for name in ("eos_token_id", "pad_token_id", "bos_token_id", "chat_template"):
        if getattr(tokenizer, name) != getattr(again, name):
            return f"its {name} is another one when it is read again"
    return None


def _texts(tokenizer: Any, rows: Sequence[Sequence[int]]) -> Iterator[str]:
    unknown = tokenizer.unk_token_id

    def known(character: str) -> bool:
        ids = tokenizer(character, add_special_tokens=False).input_ids
        return bool(ids) and unknown not in ids

    yield "".join(character for character in TEXT if known(character)) if _lacks_characters(tokenizer) else TEXT
    for row in rows[:ROWS]:
        yield tokenizer.decode(list(row[:LENGTH]))


def _lacks_characters(tokenizer: Any) -> bool:
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    return tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
