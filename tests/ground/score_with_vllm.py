"""A child of runs.py: vLLM, without this package, scores answers.

    python score_with_vllm.py MODEL FILE

Reads rows of (prompt, answer) from the file, and writes the log-probs of each answer in their place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]  # an extra


def main() -> None:
    path = Path(sys.argv[2])
    rows = json.loads(path.read_text())
    model: Any = LLM(sys.argv[1], dtype="float32", enforce_eager=True, enable_chunked_prefill=False, max_model_len=1024)
    prompts = [{"prompt_token_ids": prompt + answer} for prompt, answer in rows]
    scored = model.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    answers = []
    for (prompt, answer), one in zip(rows, scored, strict=True):
        given = one.prompt_logprobs[len(prompt) :]
        answers.append([given[i][token].logprob for i, token in enumerate(answer)])
    path.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
