"""What other tools call a key, and what it is here; and how a name that nobody knows is answered."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

LIKE, AS_GOOD, MOST = 0.6, 0.1, 3  # names this alike, and within so much of the best, at most so many

KEYS = {
    "training.rows_per_step": "batch_size train_batch_size global_batch_size per_device_train_batch_size mini_batch_size "
    "ppo_mini_batch_size gradient_accumulation_steps gradient_accumulation num_rows",
    "training.tokens_per_step": "tokens_per_batch batch_tokens batch_size_in_tokens max_tokens_per_batch",
    "training.micro_batch_tokens": "micro_batch_size micro_train_batch_size ppo_micro_batch_size ppo_max_token_len_per_gpu "
    "train_micro_batch_size_per_gpu sample_packing",
    "training.learning_rate": "lr actor_learning_rate",
    "training.epochs": "num_train_epochs num_epochs total_epochs max_epochs epoch",
    "training.max_steps": "total_training_steps max_train_steps num_steps total_steps steps",
    "training.warmup_steps": "warmup_ratio lr_warmup_steps lr_warmup_ratio lr_warmup_steps_ratio",
    "training.lr_scheduler_type": "lr_scheduler scheduler lr_schedule",
    "training.max_grad_norm": "grad_clip clip_grad gradient_clipping max_norm",
    "training.optimizer": "optim optimizer_type optimizer_name",
    "training.parameters": "param_groups loraplus_lr_ratio layerwise_lr_decay layer_wise_lr_decay",
    "training.save_every": "save_steps save_freq saves_per_epoch save_strategy",
    "training.report_to": "wandb_project use_wandb trackers logger loggers",
    "model.compute": "fp16 mixed_precision compute_dtype param_dtype bnb_4bit_compute_dtype",
    "training.gradient_checkpointing": "enable_gradient_checkpointing activation_checkpointing",
    "eval.every": "eval_steps test_freq evals_per_epoch eval_strategy evaluation_strategy",
    "model.name": "model_name model_name_or_path base_model model_path pretrain pretrained_model_name_or_path",
    "model.adapter": "lora lora_config peft_config use_peft use_lora finetuning_type peft",
    "model.adapter.r": "lora_r lora_rank rank",
    "model.adapter.alpha": "lora_alpha",
    "model.adapter.dropout": "lora_dropout",
    "model.adapter.target_modules": "lora_target lora_target_modules lora_modules modules",
    "model.dtype": "torch_dtype precision",
    "model.quantization": "load_in_4bit load_in_8bit qlora quantization_config quant_config bnb_config",
    "model.quantization.bits": "quantization_bit quantization_bits",
    "model.quantization.type": "bnb_4bit_quant_type quantization_type quant_type",
    "model.quantization.double": "bnb_4bit_use_double_quant double_quantization use_double_quant use_nested_quant",
    "model.attn_implementation": "flash_attn flash_attention use_flash_attention_2",
    "model.config": "model_kwargs model_init_kwargs override_config",
    "data.max_tokens": "max_length max_seq_length max_seq_len sequence_len cutoff_len max_len",
    "data.max_prompt_tokens": "max_prompt_length prompt_max_len",
    "data.train": "dataset dataset_name datasets train_files train_file train_dataset prompt_data data_path",
    "data.eval": "val_files eval_dataset eval_datasets test_files val_data",
    "data.train.columns": "prompt_key input_key label_key output_key dataset_text_field field_messages",
    "data.order": "curriculum curriculum_learning group_by_length",
    "data.chat_template": "apply_chat_template template",
    "rollout.n": "num_generations n_samples_per_prompt group_size num_samples rollouts_per_prompt num_rollouts",
    "rollout.questions_per_step": "rollout_batch_size num_prompts prompts_per_step",
    "rollout.max_tokens": "max_completion_length max_new_tokens max_response_length response_length generate_max_len",
    "rollout.engine": "use_vllm vllm_mode backend",
    "rollout.vllm.gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "rollout.vllm.sleep": "vllm_enable_sleep_mode vllm_enable_sleep free_cache_engine",
    "rewards": "reward_funcs reward_functions reward_fn reward_model reward_manager custom_reward_function reward",
    "algorithm.kl_coef": "kl_loss_coef init_kl_coef kl_beta use_kl_loss kl_penalty",
    "algorithm.entropy_coef": "entropy_coeff ent_coef",
    "algorithm.clip_low": "clip_ratio cliprange clip_eps eps_clip epsilon clip_ratio_low",
    "algorithm.clip_high": "clip_ratio_high epsilon_high",
    "algorithm.name": "adv_estimator advantage_estimator loss_type trainer stage rl method",
    "algorithm.beta": "pref_beta dpo_beta rl_beta",
    "distributed.processes": "n_gpus_per_node num_gpus nproc_per_node num_processes gpus",
    "distributed.mode": "deepspeed fsdp zero_stage zero_optimization",
}
"""By our key: what others call it (TRL, verl, OpenRLHF, LLaMA-Factory, axolotl)."""
OURS = {name: key for key, names in KEYS.items() for name in names.split()}
LACKING = {
    **dict.fromkeys(
        ("quantization_method", "quant_method"), "quantised weights are bitsandbytes' alone, by model.quantization"
    ),
    **dict.fromkeys(("critic_learning_rate", "critic", "value_model"), "no algorithm of this version has a critic"),
    "lora_bias": "an adapter trains no biases",
    "packing": "rows of a step always share forward passes without padding",
}
"""What others have a key for, and this version has not."""
ALGORITHMS = {
    "ppo": "it has a critic, which is not part of this version; `posttrain list algorithms` has those that learn from the "
    "same rewards without one",
}
"""What people look for, and this version has not."""


def key_hint(given: str, known: Iterable[str]) -> str:
    """What to say of an unknown key, beside those that stand at its place."""
    known, name = list(known), given.lower().replace("-", "_")
    if near := nearest(given, known, like=0.85):
        return f"did you mean {near}?"
    if name in OURS:
        return f"here it is {OURS[name]}"
    if name in LACKING:
        return LACKING[name]
    return name_hint(given, known)


def name_hint(given: str, known: Iterable[str]) -> str:
    """What to say of an unknown name."""
    known = list(known)
    if (lacking := ALGORITHMS.get(given.lower())) is not None:
        return lacking
    near = nearest(given, known)
    return f"did you mean {near}?" if near else f"there are {', '.join(known)}"


def nearest(given: str, known: Iterable[str], *, like: float = LIKE) -> str:
    """Those that are most alike, whatever their case, as "a, b or c"; nothing where none is."""
    ratios = {name: SequenceMatcher(None, name.lower(), given.lower()).ratio() for name in known}
    best = max(ratios.values(), default=0.0)
    close = [name for name in sorted(ratios, key=lambda name: -ratios[name]) if ratios[name] >= max(like, best - AS_GOOD)]
    shown = [given_as for given_as in close if best < 1 or ratios[given_as] == 1][:MOST]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
