"""The pictures of docs/around.md, by a headless Chromium: python docs/screenshots.py; two minutes on a CPU, by hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
RECIPE = """
model: {from_scratch: {architecture: qwen2, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2,
  num_key_value_heads: 2, intermediate_size: 192}, tokenizer: characters}
data:
  train: {task: chain, rows: 512}
  eval: {test: {task: chain, split: held_out, rows: 24}}
eval: {samples: 2, max_tokens: 8}
output_dir: shown
stages:
  - {name: sft, algorithm: {name: sft}, training: {max_steps: 120, rows_per_step: 64, learning_rate: 4.0e-3}}
  - name: grpo
    algorithm: {name: grpo, kl_coef: 0.0}
    rollout: {questions_per_step: 8, n: 8, max_tokens: 8}
    training: {max_steps: 12, rows_per_step: 64, learning_rate: 3.0e-4}
"""
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main() -> None:
    """Trains for a while, shows the data, and takes a picture of either page."""
    with tempfile.TemporaryDirectory() as folder:
        posttrain = [sys.executable, "-m", "posttrain"]
        Path(folder, "sums.yaml").write_text(RECIPE)
        subprocess.run([*posttrain, "run", "sums.yaml"], cwd=folder, check=True)
        subprocess.run([*posttrain, "data", "sums.yaml", "--html", "data.html"], cwd=folder, check=True)
        PICTURES.mkdir(exist_ok=True)
        for page, name, size in (
            ("shown/report.html", "report", "1200,1500"),
            ("data.html", "data", "1200,900"),
        ):
            taken = Path(folder, f"{name}.png")
            address = Path(folder, page).resolve().as_uri()
            subprocess.run([*BROWSER, f"--window-size={size}", f"--screenshot={taken}", address], check=True)
            with Image.open(taken) as picture:
                picture.convert("RGB").save(PICTURES / f"{name}.webp", quality=70, method=6)


if __name__ == "__main__":
    main()
