"""Preference pairs of right and wrong solutions to one question, from real models' graded solutions to GSM8K.

    python studies/gsm8k_pairs.py gsm8k_model_solutions.jsonl TARGET

Reads rows `{question, solutions: [{text, correct}, …]}` and writes TARGET/train.jsonl, every right solution with every
wrong one, and TARGET/held_out.jsonl, one pair for each question, so that pairs are independent. A question is on one side
only. Who wrote a solution is a hint at its being right: that alone allows an accuracy of about 0.68.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELD_OUT_SHARE = 2  # one question in two: the interval of an accuracy needs pairs


def pairs(row: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Every right solution of a row with every wrong one."""
    right = [s["text"] for s in row["solutions"] if s["correct"]]
    wrong = [s["text"] for s in row["solutions"] if not s["correct"]]
    for chosen in right:
        for rejected in wrong:
            yield {"prompt": row["question"], "chosen": chosen, "rejected": rejected}


def write(source: Path, target: Path) -> tuple[int, int]:
    """Writes both files and returns their numbers of rows."""
    train: list[dict[str, str]] = []
    held_out: list[dict[str, str]] = []
    for line in source.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if zlib.crc32(row["question"].encode()) % HELD_OUT_SHARE:
            train += pairs(row)
        else:
            found = list(pairs(row))
            held_out += found[zlib.crc32(row["question"].encode(), 1) % len(found) :][:1] if found else []
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("held_out", held_out)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (target / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return len(train), len(held_out)


if __name__ == "__main__":
    print("train {} pairs, held out {} pairs".format(*write(Path(sys.argv[1]), Path(sys.argv[2]))))
