"""What a forward and a backward pass over one micro-batch hold beside the model: the formula. `make activations-check`
measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.model.head import WIDENED_ROWS, rows_at_a_time
from posttrain.settings.training import RowLayout

WIDE = 4  # bytes of a number that is taken in float32 whatever the model is in: logits, the norms' input, log-sums
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_FIELDS = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocabulary": "vocab_size",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder whose layers are attention and a gated MLP, each after an RMSNorm, as those of Qwen2 and Llama.

    `head` is the size of an attention head; `eager` says that attention over padded rows holds its weights.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    head: int
    eager: bool = False
    tied: bool = False

    @classmethod
    def of(cls, config: Any) -> Shape | None:
        """From a transformers config; None where it does not give all of these numbers, or tells of experts."""
        config = config.get_text_config()
        values = {name: getattr(config, field, None) for name, field in _FIELDS.items()}
        sizes = {name: value for name, value in values.items() if isinstance(value, int) and value > 0}
        if len(sizes) < len(_FIELDS) or any(getattr(config, name, None) for name in EXPERTS):
            return None
        head = getattr(config, "head_dim", None) or sizes["hidden"] // sizes["heads"]
        eager = getattr(config, "_attn_implementation", None) == "eager"
        return cls(**sizes, head=head, eager=eager, tied=bool(getattr(config, "tie_word_embeddings", False)))

    @property
    def readers(self) -> tuple[tuple[tuple[str, ...], int, bool], ...]:
        """A layer's linear modules that read the same, how many numbers of a token, whether these are a matrix product."""
        return (
            (("q_proj", "k_proj", "v_proj"), self.hidden, False),
            (("o_proj",), self.heads * self.head, True),
            (("gate_proj", "up_proj"), self.hidden, False),
            (("down_proj",), self.intermediate, True),
        )

    @property
    def matrices(self) -> int:
        """Numbers of a layer's matrices."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: the modules that it is on, by their last names, its rank, and bytes of its numbers, stored and computed."""

    modules: frozenset[str]
    rank: int
    stored: int
    computed: int


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes at the peak of a micro-batch beside weights, gradients and optimizer, without and with gradient checkpointing."""

    plain: float
    checkpointed: float


def activations(
    shape: Shape,
    *,
    tokens: int,
    longest: int,
    prompt: int = 0,
    group: int = 1,
    layout: RowLayout,
    stored: int,
    computed: int,
    lora: Lora | None = None,
    scores: int = 1,
    whole: bool = False,
    device: str = "cpu",
) -> Activations:
    """Of N tokens, by what autograd keeps of each part of a layer for its backward pass.

    With H hidden size, I intermediate size, L layers, V vocabulary, A = heads × head size, K = key-value heads × head size;
    w = `stored` bytes of a weight and of the residual stream, s = `computed` bytes of a number in matrix products (2 under
    autocast). Bytes of a token in a layer, trained whole:

        norms        2 (4 + w) H          their input in float32, and the normalised one that their weight multiplies
        linears      2 s H + s I          the norms' outputs, and the MLP's product; 5 s H + s I where autocast makes a copy
                                          for each module
        attention    s (3 A + 2 K)        queries, keys, values, output by documents and joined, and 4 bytes for each head;
                                          where G answers share a prompt of P tokens, 2 s K G S / (P + G (S - P)) more: each
                                          has the prompt's keys and values beside its own; s (2 A + 2 K) and no more in 16
                                          bits on CUDA, by the kernel for stretches of any length; s (4 A + S) in padded rows
                                          of S tokens, which have keys and values for every head and a mask; eager, 4 s A +
                                          4 S heads, and s S heads more where s is not 4
        MLP          3 s I                gate, its activation, up

    An adapter of rank r leaves out the norms' w H and keeps, in place of the linears' part, the inputs of its modules alone:
    each a copy of its own where its dtype is another, and r numbers for each. With f(layer) that sum,

        ends     = N (4 + 3 w) H          final norm, the states that tokens are predicted from, and their gradient
        chunk    = 4 c min(CHUNK_ROWS, N) V       logits, c = 1; with entropy or a full KL, c = 4 + `scores`; where the
                                          `whole` logits are made, 12 N V; and s for each where s is not 4. Of log-probs
                                          alone, there, s min(NARROW_CHUNK_ROWS, N) V + 4 min(WIDENED_ROWS, N) V
        head     = 4 V H                  its gradient; 0 with an adapter
        casting  = w V H                  of this gradient, where w is not 4; on a CPU (4 + s) V H where s is not 4
        copies   = s (L matrices + V H) of weights, where w is not s: autocast's, until the end of the pass
        step     = N (2 s I + w H)        gradients within one layer; where an adapter's modules cast what they read, s and
                                          the adapter's w for each number of the widest more

        plain        = N L f(layer) + copies + max(head + ends + chunk + casting, kept + step)
        checkpointed = N L w H + max(head + copies + ends + chunk + casting, kept + N f(layer) + step + copies of one layer)

    where kept is head + chunk on a CPU, whose output layer keeps its memory (of `chunk` what is not logits is given back, so
    that c is 2 at most); elsewhere `head` if the embedding is tied to it, and its gradient waits for the embedding's; else 0

    as if every token carried loss. Not in it: an algorithm's own quantities, a few numbers a token.

    Args:
        shape: of the model.
        tokens: of the micro-batch, padding included.
        longest: tokens of its longest row, S.
        prompt: tokens of it that are the prompt, P.
        group: answers that share a prompt, G.
        layout: of its rows.
        stored: bytes of a number of the weights.
        computed: bytes of a number that matrices are multiplied in.
        lora: the adapter, if only one is trained.
        scores: of each token: its log-prob, and entropy and KL where the algorithm has them.
        whole: all logits are made at once, N V.
        device: "cpu" or "cuda".

    Raises:
        ValueError: no tokens.
    """
    if tokens < 1:
        raise ValueError(f"tokens is {tokens}, expected at least 1")
    hidden, wide = shape.hidden, max(WIDE, computed)
    rows: dict[str, Any] = {"layout": layout, "longest": longest, "prompt": prompt, "group": group}
    attention = of_attention(shape, **rows, computed=computed, device=device)
    norms = 2 * (WIDE + (0 if lora else stored)) * hidden
    mlp = 3 * computed * shape.intermediate
    layer = tokens * (norms + _of_linears(shape, stored, computed, lora) + attention + mlp)
    copied = computed if computed != stored else 0
    narrow, head = computed != wide, 0 if lora else shape.vocabulary * hidden
    chunk = _of_logits(tokens, computed, scores, whole=whole, device=device) * shape.vocabulary
    casting = head * (wide + computed if narrow and device == "cpu" else stored * (stored != wide))
    scoring = wide * head + tokens * (WIDE + 3 * stored) * hidden + chunk + casting
    kept = wide * head if shape.tied else 0
    if device == "cpu" and not whole:
        rooms = 2 * wide * min(rows_at_a_time(device), tokens) * shape.vocabulary
        kept = wide * head + (chunk if scores == 1 else rooms)
    step = tokens * (2 * computed * shape.intermediate + stored * hidden + _cast_back(shape, stored, computed, lora))
    copies = copied * (shape.layers * shape.matrices + shape.vocabulary * hidden)
    inputs = tokens * shape.layers * stored * hidden
    return Activations(
        plain=shape.layers * layer + copies + max(scoring, kept + step),
        checkpointed=inputs + max(copies + scoring, kept + layer + step + copied * shape.matrices),
    )


def _of_logits(tokens: int, computed: int, scores: int, *, whole: bool, device: str) -> float:
    """Bytes of a vocabulary's entry."""
    narrow, wide = computed < WIDE, max(WIDE, computed)
    if narrow and scores == 1 and not whole:
        return computed * min(rows_at_a_time(device, narrow=True), tokens) + wide * min(WIDENED_ROWS, tokens)
    rows = tokens if whole else min(rows_at_a_time(device), tokens)
    return rows * (wide * (3 if whole else 1 if scores == 1 else 4 + scores) + computed * narrow)


def of_attention(
    shape: Shape, *, layout: RowLayout, longest: int, prompt: int, group: int, computed: int, device: str
) -> float:
    """Bytes of a token; see `activations`."""
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    if layout != "padded" and device == "cuda" and computed == 2:
        return computed * (2 * query + 2 * key) + WIDE * shape.heads
    if layout != "padded":
        copies = group * longest / (prompt + group * (longest - prompt)) if layout == "shared" else 0
        return computed * (3 * query + 2 * key + 2 * key * copies) + WIDE * shape.heads
    if shape.eager:
        return computed * 4 * query + shape.heads * longest * (WIDE + (computed if computed != WIDE else 0))
    return computed * (4 * query + longest) + WIDE * shape.heads


def _of_linears(shape: Shape, stored: int, computed: int, lora: Lora | None) -> float:
    """Bytes of a token: what linear modules keep of what they read. Those that read the same share it, if none casts it."""
    kept, total = lora.computed if lora else computed, 0.0
    for names, width, is_product in shape.readers:
        training = [name for name in names if lora is None or name in lora.modules]
        shared = _is_shared(computed if is_product else stored, computed, lora)
        already = shared and names == ("o_proj",)  # attention keeps its output
        total += kept * width * (0 if already else min(len(training), 1) if shared else len(training))
        total += kept * lora.rank * len(training) if lora else 0
    return total


def _cast_back(shape: Shape, stored: int, computed: int, lora: Lora | None) -> float:
    """Bytes of a token: the gradient of what an adapter's module has cast, in both dtypes."""
    if lora is None:
        return 0.0
    widths = [
        width
        for names, width, is_product in shape.readers
        if lora.modules.intersection(names) and not _is_shared(computed if is_product else stored, computed, lora)
    ]
    return (lora.stored + computed) * max(widths, default=0)


def _is_shared(read: int, computed: int, lora: Lora | None) -> bool:
    """Whether what is read, in numbers of so many bytes, is kept as it is."""
    return read == computed if lora is None else read == lora.stored == lora.computed
