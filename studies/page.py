"""`python studies/page.py NAME`: the figures of docs/studies/NAME.md, from the committed results of studies/NAME.yaml.

Where the study has been run, its results are first taken over into studies/NAME.json, as far as the page's tables show them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from posttrain.execution.study.config import StudyConfig, load_study
from posttrain.execution.study.results import read_results, save_results
from posttrain.execution.study.table import tables

FIGURES = "## Figures"
ENOUGH = 5  # seeds, below which a study is a pilot


def kept(study: StudyConfig) -> set[str]:
    """The names of what is shown of a study's runs."""
    shown = ["pass@1", "length", *(f"pass@{k}" for k in study.recipe["eval"].get("k", []))]
    of_sets = {f"eval/{name}/{what}" for name in study.recipe["data"]["eval"] for what in shown}
    return {*of_sets, *(f"eval/{name}" for name in study.shown), *study.shown, "entropy", "kl_per_answer"}


def write(name: str) -> None:
    """Takes over what the study left, if it was run here, and writes the page's figures."""
    study, results, page = load_study(f"studies/{name}.yaml"), Path(f"studies/{name}.json"), Path(f"docs/studies/{name}.md")
    made = Path(study.output_dir) / "results.json"
    if made.is_file():
        save_results(results, read_results(made), only=kept(study))
    title = f"{'Pilot: ' * (len(study.seeds) < ENOUGH)}{name.replace('_', ' ')}"
    text = page.read_text().partition(FIGURES)[0] if page.exists() else f"# {title[0].upper()}{title[1:]}\n\n"
    page.write_text(f"{text}{FIGURES}\n\n{tables(study, read_results(results))}")


if __name__ == "__main__":
    write(sys.argv[1])
