"""The output layer: from hidden states to scores of tokens, and the memory that it is done in."""

from posttrain.model.head.alone import WIDENED_ROWS
from posttrain.model.head.layer import Columns, Head, Named, ReferenceStates, named
from posttrain.model.head.passes import Weigh, full_logprobs, in_one_pass, token_logprobs
from posttrain.model.head.rows import rows_at_a_time
from posttrain.model.head.softmax import kernel_fails

__all__ = [
    "WIDENED_ROWS",
    "Columns",
    "Head",
    "Named",
    "ReferenceStates",
    "Weigh",
    "full_logprobs",
    "in_one_pass",
    "kernel_fails",
    "named",
    "rows_at_a_time",
    "token_logprobs",
]
