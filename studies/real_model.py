"""`make real-study`: what a few steps of SFT do to a real pretrained model, asked through its chat template.

Two arms, LoRA of rank 8: `sums` (two-digit sums, "Reply with the number only"), by greedy answers to questions of other
pairs, and `gsm8k`, by the log-probs of held-out solutions. The rate of an arm is the best of three on a seed of its own and
other rows; then five seeds. GSM8K's accuracy is reported whatever it is. `--grpo` adds GRPO from the first seed's model of
sums, one seed.

Goes on where it was broken off. Writes studies/real_model.json, and from it the figures of docs/real_models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import yaml
from real_model_page import RATES, RESULTS, SEEDS, Results, over_seeds, write_page

from ground.catalogue import MODEL, finished

TUNING_SEED = 100
TRAINED, OTHERS = 512, 96
"""Sums to train on; as many others to choose a rate by, and as many again to measure with."""
ADAPTER = {"r": 8, "alpha": 16}
SUM = "What is {} + {}? Reply with the number only."
COLUMNS = {"prompt": "question", "completion": "answer"}
ROWS = 32
"""Solutions of GSM8K that are scored, to choose by and to measure with."""
ASKED, TOKENS = 16, 160
"""Questions of GSM8K that are answered, and the tokens of an answer."""
STEPS = {"sums": (8, 16), "gsm8k": (8, 4)}
"""Optimizer steps, and rows of each."""


class Study:
    """The runs of the study in a folder: each is a command, two at a time, and what is done is not done again."""

    def __init__(self, model: Path, data: Path, folder: Path) -> None:
        self.model, self.data, self.folder = model, data, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._write_data()

    def _write_data(self) -> None:
        numbers = range(10, 100)
        pairs = [(a, b) for a in numbers for b in numbers if a <= b]
        Random(0).shuffle(pairs)
        rng = Random(1)
        rows = [(SUM.format(*rng.sample(pair, 2)), str(sum(pair))) for pair in pairs[: TRAINED + 2 * OTHERS]]
        parts = {"train": rows[:TRAINED], "choosing": rows[TRAINED : TRAINED + OTHERS], "held_out": rows[TRAINED + OTHERS :]}
        for name, part in parts.items():
            made = (json.dumps({"prompt": asked, "completion": said, "answer": said}) + "\n" for asked, said in part)
            (self.folder / f"sums_{name}.jsonl").write_text("".join(made))
        lines = (self.data / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        for name, start in (("held_out", 0), ("choosing", ROWS)):
            (self.folder / f"gsm8k_{name}.jsonl").write_text("".join(lines[start : start + ROWS]), encoding="utf-8")

    def command(self, *arguments: str) -> None:
        """`posttrain …` on one thread.

        Raises:
            RuntimeError: it did not end well.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        line = [sys.executable, "-m", "posttrain", *arguments]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")

    def train(self, arm: str, rate: float, seed: int) -> Path:
        """SFT from the start model; the folder of the model that it leaves."""
        steps, rows = STEPS[arm]
        path = self.folder / "sums_train.jsonl" if arm == "sums" else self.data / "gsm8k_train.jsonl"
        train = {"path": str(path.absolute()), **({"columns": COLUMNS} if arm == "gsm8k" else {})}
        training = {"max_steps": steps, "rows_per_step": rows, "learning_rate": rate, "warmup_steps": 1, "save_every": 0}
        return self.run(
            f"{arm}-{rate:g}-{seed}",
            {
                "model": {"name": str(self.model), "adapter": ADAPTER},
                "algorithm": {"name": "sft"},
                "data": {"train": train, "max_tokens": 512},
                "training": training,
                "seed": seed,
            },
        )

    def run(self, name: str, recipe: dict[str, Any]) -> Path:
        """`posttrain run`; a finished one is left as it is."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**recipe, "output_dir": str((self.folder / name).absolute())}))
        self.command("run", str(path))
        return self.folder / name / "final"

    def answers(self, model: Path, data: str, limit: int, tokens: int, grader: str, *more: str) -> list[dict[str, Any]]:
        """Greedy answers by `posttrain eval`, in the order of the questions."""
        name = "start" if model == self.model else model.parent.name
        target = self.folder / f"{name}-{data}.jsonl"
        found = target.with_name(f"{target.stem}-answers.jsonl")
        if not found.is_file():
            given = ["--data", str(self.folder / f"{data}.jsonl"), "--limit", str(limit), "--max-tokens", str(tokens)]
            given += ["--samples", "1", "--temperature", "0", "--grader", grader, "--output", str(target), *more]
            self.command("eval", str(model), *given)
        return [json.loads(line) for line in found.read_text(encoding="utf-8").split("\n") if line]

    def sums(self, model: Path, part: str) -> list[dict[str, Any]]:
        """Greedy answers to sums."""
        return self.answers(model, f"sums_{part}", OTHERS, 32, "exact_match")

    def losses(self, model: Path, part: str) -> list[float]:
        """The mean negative log-prob of each solution's tokens and its end, by transformers alone, in nats."""
        name = "start" if model == self.model else model.parent.name
        target = self.folder / f"{name}-{part}-nll.json"
        if not target.is_file():
            rows = str(self.folder / f"gsm8k_{part}.jsonl")
            subprocess.run([sys.executable, __file__, "--score", str(model), rows, str(target)], check=True)
        return json.loads(target.read_text())


def score(model: Path, rows: Path, target: Path) -> None:
    """A child of `Study.losses`: solutions after the model's own chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    losses: list[float] = []
    for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines()):
        asked = [{"role": "user", "content": row["question"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        answer = [*tokenizer(row["answer"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item())
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(losses))
    partial.rename(target)


def right(answer: dict[str, Any]) -> float:
    """1 where the last whole number of an answer that came to its end is the sum."""
    numbers = re.findall(r"\d+", answer["completion"])
    return float(answer["finish"] == "stop" and numbers[-1:] == [answer["reference"]])


def alone(answer: dict[str, Any]) -> float:
    """1 where the answer is the sum and nothing else, as was asked."""
    return float(answer["completion"].strip() == answer["reference"])


def measure(study: Study, results: Results, workers: int, with_grpo: bool) -> None:
    """All runs; what they gave is put into the results."""
    of_start = {"sums": study.sums(study.model, "held_out"), "gsm8k": study.losses(study.model, "held_out")}
    results.scores["sums/start"] = list(map(right, of_start["sums"]))
    results.scores["sums alone/start"] = list(map(alone, of_start["sums"]))
    results.scores["gsm8k/start"] = of_start["gsm8k"]
    with ThreadPoolExecutor(workers) as pool:
        tried = [(arm, rate) for arm in STEPS for rate in RATES]
        for (arm, rate), mean in zip(tried, pool.map(lambda one: _tuned(study, *one), tried), strict=True):
            results.rates.setdefault(arm, {})[f"{rate:g}"] = mean
        chosen = {"sums": _best(results, "sums", max), "gsm8k": _best(results, "gsm8k", min)}
        todo = [(arm, chosen[arm], seed) for arm in STEPS for seed in SEEDS]
        grpo = pool.submit(_grpo, study, results, chosen["sums"]) if with_grpo else None
        for found in pool.map(lambda one: _measured(study, *one), todo):
            results.scores.update(found)
        models = (("start", study.model), ("seed 0", study.train("gsm8k", chosen["gsm8k"], 0)))
        for name, found in zip(("start", "seed 0"), pool.map(lambda one: _gsm8k_answers(study, one[1]), models), strict=True):
            results.scores[f"gsm8k right/{name}"] = [float(one["verdict"] == "right") for one in found]
            results.scores[f"gsm8k cut off/{name}"] = [float(one["finish"] == "length") for one in found]
        if grpo is not None:
            grpo.result()


def _best(results: Results, arm: str, best: Callable[..., str]) -> float:
    return float(best(results.rates[arm], key=results.rates[arm].__getitem__))


def _tuned(study: Study, arm: str, rate: float) -> float:
    model = study.train(arm, rate, TUNING_SEED)
    found = map(right, study.sums(model, "choosing")) if arm == "sums" else study.losses(model, "choosing")
    return statistics.fmean(found)


def _measured(study: Study, arm: str, rate: float, seed: int) -> dict[str, list[float]]:
    model = study.train(arm, rate, seed)
    if arm == "gsm8k":
        return {f"gsm8k/{seed}": study.losses(model, "held_out")}
    found = study.sums(model, "held_out")
    return {f"sums/{seed}": list(map(right, found)), f"sums alone/{seed}": list(map(alone, found))}


def _gsm8k_answers(study: Study, model: Path) -> list[dict[str, Any]]:
    return study.answers(model, "gsm8k_held_out", ASKED, TOKENS, "math_verify", "--columns", "prompt=question")


def _grpo(study: Study, results: Results, rate: float) -> None:
    start = study.train("sums", rate, 0)
    recipe = {
        "model": {"name": str(start.absolute()), "adapter": ADAPTER},
        "algorithm": {"name": "grpo", "kl_coef": 0.0},
        "data": {"train": {"path": str((study.folder / "sums_train.jsonl").absolute()), "columns": {"prompt": "prompt"}}},
        "rewards": [{"name": "exact_match"}],
        "rollout": {"questions_per_step": 8, "n": 8, "max_tokens": 8},
        "training": {"max_steps": 100, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "save_every": 20},
    }
    found = study.sums(study.run("grpo", recipe), "held_out")
    results.scores.update({"sums/grpo": list(map(right, found)), "sums alone/grpo": list(map(alone, found))})


def main() -> None:
    """Measures, writes, and ends with 1 where an interval over seeds is not above 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/real_model"))
    parser.add_argument("--workers", type=int, default=2, help="commands at a time, one thread each")
    parser.add_argument("--grpo", action="store_true")
    parser.add_argument("--score", type=Path, nargs=3, metavar=("MODEL", "ROWS", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score:
        score(*options.score)
        return
    model, data = finished(MODEL), os.environ.get("POSTTRAIN_TEST_DATA")
    if model is None or not data:
        sys.exit(
            "make real-models first, and name the folder of gsm8k_train.jsonl and gsm8k_test.jsonl: POSTTRAIN_TEST_DATA=..."
        )
    study, results = Study(model, Path(data), options.folder), Results()
    measure(study, results, options.workers, options.grpo)
    RESULTS.write_text(json.dumps(asdict(results), indent=1) + "\n")
    write_page(results)
    sys.exit(min(over_seeds(results, "sums", 1.0)[1], over_seeds(results, "gsm8k", -1.0)[1]) <= 0)


if __name__ == "__main__":
    main()
