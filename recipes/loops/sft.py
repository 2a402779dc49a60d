"""A bare training loop of supervised fine-tuning: your model, your optimizer, our loss: `python recipes/loops/sft.py`.

The task is to write a number backwards; the model is made from scratch, so that nothing is fetched. Half a minute on a CPU.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from posttrain import Batch, Origin, build_algorithm, policy_gradient_loss

PAD, END, EQUALS, VOCABULARY = 10, 11, 12, 16
"""Digits are their own ids."""


def make_model() -> Any:
    """Two layers, 0.1 M parameters."""
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, **sizes))


def question(rng: random.Random) -> tuple[list[int], list[int]]:
    """A prompt, and the answer to it, as token ids."""
    digits = [rng.randrange(10) for _ in range(4)]
    return [*digits, EQUALS], [*reversed(digits), END]


def logp_of(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> torch.Tensor:
    """Log-probs of the answers' tokens, [B, T]; all prompts have one length, and all answers."""
    ids = torch.tensor([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    start = len(prompts[0])
    logits = model(input_ids=ids).logits[:, start - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[:, start:, None])[..., 0]


def main() -> float:
    """Trains, and returns the share of new questions that are answered right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", default="sft", help="any that trains on demonstrations without a reference")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--micro-batches", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(0)
    rng, model, algorithm = random.Random(0), make_model(), build_algorithm(args.algorithm)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    print(algorithm)
    for step in range(args.steps):
        prompts, answers = map(list, zip(*(question(rng) for _ in range(args.rows)), strict=True))
        mask = torch.ones(args.rows, len(answers[0]), dtype=torch.bool)
        batch = Batch(loss_mask=mask, origin=torch.full(mask.shape, Origin.DEMO), progress=step / args.steps)
        counts = algorithm.counts(batch)  # of the whole step: however it is cut, the gradient is the same
        loss = 0.0
        for rows in torch.arange(args.rows).chunk(args.micro_batches):
            logp = logp_of(model, [prompts[i] for i in rows], [answers[i] for i in rows])
            output = policy_gradient_loss(algorithm, logp, batch.take(rows), counts=counts)
            output.loss.backward()
            loss += output.loss.item()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}")

    asked = [question(rng) for _ in range(200)]
    with torch.no_grad():
        prompts = torch.tensor([prompt for prompt, _ in asked])
        written = model.generate(prompts, max_new_tokens=5, do_sample=False, pad_token_id=PAD)
    right = sum(row[5:].tolist() == answer for row, (_, answer) in zip(written, asked, strict=True)) / len(asked)
    print(f"right: {right:.2f}")
    return right


if __name__ == "__main__":
    main()
