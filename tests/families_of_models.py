"""Small models in the shapes that matter: what their families do otherwise than the plain one."""

from __future__ import annotations

from typing import Any

from transformers import Gemma2Config, Gemma3TextConfig, LlamaConfig, MistralConfig, MixtralConfig, OPTConfig, Qwen3MoeConfig

VOCABULARY = 272
SIZE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
SHAPE: dict[str, Any] = {**SIZE, "intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.2}
ENDS: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, Any] = {
    "tied embeddings, grouped heads": LlamaConfig(**SHAPE, **ENDS, tie_word_embeddings=True),
    "sliding window": MistralConfig(**SHAPE, **ENDS, sliding_window=8),
    "soft-capped logits": Gemma2Config(**SHAPE, **ENDS, final_logit_softcapping=2.0, sliding_window=8),
    "windows in some layers": Gemma3TextConfig(**SHAPE, **ENDS, sliding_window=8),
    "fused experts": MixtralConfig(**SHAPE, **ENDS, num_local_experts=4, router_jitter_noise=0.1),
    "many small experts": Qwen3MoeConfig(**SHAPE, **ENDS, **EXPERTS),
    "layers left out": OPTConfig(
        **SIZE, **ENDS, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=256, layerdrop=0.3, init_std=0.2
    ),
}
