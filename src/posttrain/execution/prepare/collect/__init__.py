"""Steps of `data.collect` over records: a model is asked, its answers are kept by rules, and become rows."""
