"""What users of transformers and TRL hand over, as the trainer takes it; or what to use instead, in a sentence."""
