"""A bare loop of reinforcement learning: your model and reward, our engine and loss: `python recipes/loops/grpo.py`.

The reward is the share of even digits in four; the model is made from scratch, so that nothing is fetched. Seconds on a CPU.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from posttrain import Batch, Completion, HFEngine, Request, Sampling, build_algorithm, policy_gradient_loss
from posttrain.model.load import make_tokenizer
from posttrain.settings.model import CharacterTokenizer

MAX_TOKENS = 4


def make_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Two layers, 0.1 M parameters."""
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes))


def reward(text: str) -> float:
    """The share of even digits, of four characters."""
    return sum(character in "02468" for character in text) / 4


def logp_of(model: Any, prompts: list[list[int]], answers: list[Completion]) -> torch.Tensor:
    """Log-probs of the answers' tokens, [B, max_tokens]; all prompts have one length. The temperature is 1."""
    start, width = len(prompts[0]), len(prompts[0]) + MAX_TOKENS
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[i, : len(prompt) + len(answer.tokens)] = torch.tensor([*prompt, *answer.tokens])
    logits = model(input_ids=ids).logits[:, start - 1 : -1]  # what follows an answer is padding, which it does not see
    return logits.log_softmax(-1).gather(-1, ids[:, start:, None])[..., 0]


def padded(values: list[list[float]], dtype: torch.dtype) -> torch.Tensor:
    """[B, max_tokens], 0 where an answer is over."""
    rows = torch.zeros(len(values), MAX_TOKENS, dtype=dtype)
    for i, row in enumerate(values):
        rows[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return rows


def main() -> float:
    """Trains, and returns the mean reward of the last collection."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", default="grpo", help="any over rollouts alone: dr_grpo, rloo, cispo, …")
    parser.add_argument("--collections", type=int, default=40)
    parser.add_argument("--updates", type=int, default=2, help="optimizer steps for each collection")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8, help="for each question")
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = make_tokenizer(CharacterTokenizer(characters="0123456789="))
    model = make_model(tokenizer)
    engine, optimizer = HFEngine(model, tokenizer), torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"max_tokens": MAX_TOKENS} if args.algorithm == "dr_grpo" else {}
    algorithm = build_algorithm(args.algorithm, rollouts=args.rollouts, updates=args.updates, kl_coef=0.0, **options)
    print(algorithm)
    mean = 0.0
    for number in range(args.collections):
        asked = [tokenizer(f"{number * args.questions + i:04d}=").input_ids for i in range(args.questions)]
        requests = [Request(prompt, n=args.rollouts, question=i) for i, prompt in enumerate(asked)]
        sampled = engine.generate(requests, Sampling(max_tokens=MAX_TOKENS, step=number))
        answers = [answer for group in sampled for answer in group]
        prompts = [prompt for prompt in asked for _ in range(args.rollouts)]
        texts = [str(tokenizer.decode(list(answer.tokens), skip_special_tokens=True)) for answer in answers]

        model.eval()
        with torch.no_grad():
            old = logp_of(model, prompts, answers)  # of the policy that sampled, by our own forward
        batch = Batch(
            loss_mask=padded([[1.0] * len(answer.tokens) for answer in answers], torch.bool),
            group=torch.arange(args.questions).repeat_interleave(args.rollouts),
            reward=torch.tensor([reward(text) for text in texts]),
            old_logp=old if algorithm.needs.old_logp else None,
            behavior_logp=padded([list(answer.logprobs) for answer in answers], torch.float32),
            progress=number / args.collections,
        )
        batch = algorithm.prepare(batch)  # rewards and groups → advantages, over the whole collection
        for rows in torch.arange(len(answers)).chunk(args.updates):
            logp = logp_of(model, [prompts[i] for i in rows], [answers[i] for i in rows])
            policy_gradient_loss(algorithm, logp, batch.take(rows)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        mean = float(torch.tensor([reward(text) for text in texts]).mean())
        if number % 10 == 0:
            print(f"collection {number}: reward {mean:.3f}")
    engine.close()
    print(f"reward: {mean:.3f}")
    return mean


if __name__ == "__main__":
    main()
