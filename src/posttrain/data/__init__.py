"""From files, hub data sets and generated tasks to rows of token ids that carry loss."""
