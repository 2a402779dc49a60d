"""What all tests share: one hypothesis profile, the same examples in every run."""

from hypothesis import Phase, settings

settings.register_profile(
    "posttrain",
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("posttrain")
