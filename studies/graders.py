"""`make graders-study`: how often math-verify, as it is used here, is right on real answers; writes docs/graders.md.

The folder with the answers is the argument.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from posttrain.rewards.grading import MathVerify, Verdict
from posttrain.rewards.reading.answers import final_answer
from rewards.rewritings import RIGHT, WRONG
from rewards.test_hostile import FREEZING
from rewards.test_reading import FORMS

SETS = ("math500", "aime24", "aime25", "amc23")
GOLD = (*SETS, "gsm8k_test")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _themselves(grader: MathVerify, folder: Path) -> list[str]:
    lines = ["| form | right | of |", "|---|---|---|"]
    golds = [(final_answer(row["answer"]), row["answer"]) for name in GOLD for row in _rows(folder / f"{name}.jsonl")]
    verdicts = dict[tuple[str, str, str], str]()
    for name, form in FORMS.items():
        seen = Counter[str]()
        for gold, reference in golds:
            if (name, gold, reference) not in verdicts:
                verdicts[name, gold, reference] = grader.grade(form.replace("%s", gold), "", reference).verdict
            seen[verdicts[name, gold, reference]] += 1
        shown = form.replace("\n", "\\n")
        lines.append(f"| {name}: `{shown}` | {seen[Verdict.RIGHT]} | {seen.total()} |")
    refused = [f"- {name}: `{gold}`, {verdict}" for (name, gold, _), verdict in verdicts.items() if verdict != Verdict.RIGHT]
    lines += ["", f"{len(golds)} answers of {', '.join(GOLD)}, each in {len(FORMS)} forms: {len(refused)} refused.", *refused]
    return lines


def _rewritings(grader: MathVerify, folder: Path) -> list[str]:
    lines = ["| answer | as it should be | of |", "|---|---|---|"]
    rows = [row for name in SETS for row in _rows(folder / f"{name}.jsonl")]
    for name, rewrite in {**RIGHT, **WRONG}.items():
        seen = Counter[bool]()
        for row in rows:
            written = rewrite(final_answer(row["answer"]))
            if written is not None:
                verdict = grader.grade(written, row["prompt"], row["answer"]).verdict
                seen[not verdict.failed and (verdict is Verdict.RIGHT) == (name in RIGHT)] += 1
        lines.append(f"| {name}, {'right' if name in RIGHT else 'wrong'} | {seen[True]} | {seen.total()} |")
    return lines


def _solutions(grader: MathVerify, folder: Path) -> list[str]:
    lines = ["| final answer | answers | false accepts | false rejects | failed |", "|---|---|---|---|---|"]
    changed = list[str]()
    rows = _rows(folder / "gsm8k_model_solutions.jsonl")
    for name in ("as sampled", *RIGHT):
        seen = Counter[str]()
        for row in rows:
            for solution in row["solutions"]:
                text = solution["text"]
                if name != "as sampled":
                    body, _, answer = text.rpartition("A: ")
                    written = RIGHT[name](answer.strip()) if body and answer.strip().isdigit() else None
                    if written is None:
                        continue
                    text = body + written
                verdict = grader.grade(text, row["question"], row["reference"]).verdict
                right = verdict is Verdict.RIGHT
                seen["answers"] += 1
                seen["accepts"] += right and not solution["correct"]
                seen["rejects"] += solution["correct"] and not right
                seen["failed"] += verdict.failed
                if right != solution["correct"]:
                    came, read_as = "right" if solution["correct"] else "wrong", final_answer(text)
                    changed.append(f"- {name}, {came} in the data, here {verdict}: `{read_as}` to: {row['question']}")
        lines.append(f"| {name} | {seen['answers']} | {seen['accepts']} | {seen['rejects']} | {seen['failed']} |")
    told = "No verdict is another than the one that came with the answer."
    return [*lines, "", *([f"{len(changed)} verdicts are others than those that came:", *changed] if changed else [told])]


def _hostile() -> list[str]:
    grader, slowest, verdicts = MathVerify(), 0.0, Counter[str]()
    for text in FREEZING:
        for written in (f"\\boxed{{{text}}}", f"#### {text}"):
            started = time.monotonic()
            verdicts[grader.grade(written, "", "18").verdict] += 1
            slowest = max(slowest, time.monotonic() - started)
    warm = list[float]()
    for i in range(500):
        started = time.perf_counter()
        grader.grade(f"so \\boxed{{{i}}}", "", "18")
        warm.append(time.perf_counter() - started)
    grader.close()
    outcomes = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    return [
        f"{2 * len(FREEZING)} answers made to freeze or to fill the memory: {outcomes}; the slowest was out after "
        f"{slowest:.2f} s by the wall, at a deadline of 2 s of its own time. "
        f"A warm call takes {1000 * statistics.median(warm):.2f} ms (median of 500; "
        f"99th percentile {1000 * sorted(warm)[494]:.2f} ms)."
    ]


def main() -> None:
    """Counts and writes."""
    folder, grader = Path(sys.argv[1]), MathVerify()
    page = [
        "# math-verify on real answers",
        "`make graders-study` wrote this page: math-verify 0.9 in a child process; "
        "`docs/rewards.md` says what of a text is the answer.",
        "## Every gold answer as its own reference, in every form",
        "\n".join(_themselves(grader, folder)),
        "## MATH-500, AIME 2024 and 2025, AMC 2023: rewritten and changed gold answers",
        "\n".join(_rewritings(grader, folder)),
        "## GSM8K: 4000 solutions sampled from real models, against the verdicts that came with them",
        "\n".join(_solutions(grader, folder)),
        "## Hostile answers",
        *_hostile(),
    ]
    grader.close()
    Path("docs/graders.md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
