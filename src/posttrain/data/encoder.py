"""From text and messages to token ids with a loss mask. The only place that knows templates, so that training and
sampling see the same prompt.

Prompt and completion are tokenised apart, as at inference, and joined as ids: no token ever spans the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from posttrain.data.columns import TemplateFields
from posttrain.data.rows import BadRow, LongRow, Row
from posttrain.data.trl_templates import training_chat_template
from posttrain.errors import DataError, SetupError
from posttrain.settings.data import Encoding

Message = dict[str, str]
Notes = list[tuple[str, str]]
"""Counter and reason of what was cut, or is not used."""
_ROLES = ("system", "user", "assistant", "tool")


class Encoder:
    """Columns of a record → `Row`, after the recipe's templates and length limits.

    Args:
        tokenizer: of transformers.
        config: templates, limits and policies.
        eos_ids: every token that ends an answer, the generation config's among them; the first is appended where a
            completion has none.
        limit: the model's own maximal length.
    """

    def __init__(self, tokenizer: Any, config: Encoding, eos_ids: Sequence[int], limit: int | None = None) -> None:
        self._tokenizer, self._config, self._eos_ids = tokenizer, config, tuple(eos_ids)
        limits = [length for length in (config.max_tokens, limit) if length is not None]
        self._max_tokens = min(limits) if limits else None
        self._marked_template: str | None = None
        other = {tokenizer.bos_token_id, tokenizer.pad_token_id, *self._eos_ids}
        self._unknown = None if tokenizer.unk_token_id in other else tokenizer.unk_token_id
        if not self._eos_ids:
            raise SetupError("The tokenizer and the model name no end-of-sequence token: answers could never end.")
        if config.chat_template and not tokenizer.chat_template:
            raise DataError(
                "The tokenizer has no chat template. Join plain text: data.chat_template: false in a recipe, or "
                "--no-chat-template of posttrain eval."
            )
        bos = tokenizer("").input_ids
        self._bos = bos if bos == [tokenizer.bos_token_id] else []

    def prompt(self, columns: Mapping[str, Any]) -> tuple[list[int], Notes]:
        """The prompt as the model is asked it, and what was cut.

        Raises:
            BadRow: a column is missing or of the wrong type, or the prompt is too long.
        """
        if not self._config.chat_template:
            ids = self._bos + self._ids(self._text(columns))
        else:
            ids = self._ids(self._render(self._prompt_messages(columns), generate=True))
        if not ids:
            raise BadRow("the prompt is empty")
        return self._fit_prompt(ids)

    def demonstration(self, columns: Mapping[str, Any]) -> tuple[Row, Notes]:
        """A row from `prompt` and `completion`, or from `messages`, and what was cut.

        Raises:
            BadRow: as in `prompt`; the completion is empty, or nothing in the row carries loss.
        """
        if "messages" in columns:
            if not self._config.chat_template:
                raise BadRow("messages need chat_template: true")
            messages = _messages(columns["messages"], "messages")
            if self._config.system_prompt is not None and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": self._config.system_prompt}, *messages]
            return self._conversation(messages, 0)
        return self._answer(columns, "completion")

    def preference(self, columns: Mapping[str, Any]) -> tuple[tuple[Row, Row], Notes]:
        """The chosen and the rejected row, and what was cut.

        Conversations that hold their prompt, whether there is a `prompt` column or not, are split where they begin to differ.

        Raises:
            BadRow: as in `prompt`, or the two completions are equal.
        """
        if "prompt" not in columns or all(_holds_prompt(columns.get(side)) for side in ("chosen", "rejected")):
            columns = _with_common_prompt(columns)
        (chosen, cuts), (rejected, more) = self._answer(columns, "chosen"), self._answer(columns, "rejected")
        if np.array_equal(chosen.completion, rejected.completion):
            raise BadRow(f"chosen and rejected are equal{' once they are cut to max_tokens' if cuts or more else ''}")
        return (chosen, rejected), cuts + more

    def _answer(self, columns: Mapping[str, Any], column: str) -> tuple[Row, Notes]:
        answer = columns.get(column)
        if isinstance(answer, str):
            if not answer.strip():
                raise BadRow(f"{column} is empty")
            if not self._config.chat_template:
                return self._row(self._bos + self._ids(self._text(columns)), [(self._ids(answer), True)])
            answer = [{"role": "assistant", "content": answer}]
        elif not self._config.chat_template:
            raise BadRow(f"{column} must be text where chat_template is false, not {type(answer).__name__}")
        prompt = self._prompt_messages(columns)
        return self._conversation(prompt + _messages(answer, column), len(prompt))

    def _prompt_messages(self, columns: Mapping[str, Any]) -> list[Message]:
        prompt = columns.get("prompt")
        if isinstance(prompt, str):
            messages: list[Message] = [{"role": "user", "content": self._text(columns)}]
        else:
            messages = _messages(prompt, "prompt")
            if self._config.prompt_template != "{prompt}":
                raise BadRow("prompt_template wraps text, and the prompt is a list of messages")
        if self._config.system_prompt is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._config.system_prompt}, *messages]
        return messages

    def _text(self, columns: Mapping[str, Any]) -> str:
        if not isinstance(columns.get("prompt"), str):
            raise BadRow(f"prompt must be text, not {type(columns.get('prompt')).__name__}")
        try:
            text = self._config.prompt_template.format_map(TemplateFields(columns))
        except BadRow:
            raise
        except (ValueError, TypeError) as error:
            raise BadRow(f"prompt_template does not fit the row: {error}") from None
        if not text.strip():
            raise BadRow("prompt is empty")
        return text

    def _render(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generate, **self._config.chat_template_kwargs
            )
        except Exception as error:  # templates raise what they like, by raise_exception or by accident
            raise BadRow(f"the chat template refuses it: {error}") from None

    def _conversation(self, messages: list[Message], first: int) -> tuple[Row, Notes]:
        """A row that supervises the assistant's turns from message `first` on."""
        turns = [i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"]
        if not turns:
            raise BadRow("no turn of the assistant")
        if not turns[0]:
            raise BadRow("it begins with a turn of the assistant, and nothing before it asks for that")
        if not all(messages[i]["content"].strip() for i in turns):
            raise BadRow("a turn of the assistant is empty")
        pieces: list[tuple[str, bool]] = []
        done = ""
        for turn in turns:
            before, through = self._render(messages[:turn], generate=True), self._render(messages[: turn + 1])
            if not (before.startswith(done) and through.startswith(before)):
                return self._marked(messages, turns)
            pieces += [(before[len(done) :], False), (through[len(before) :], True)]
            done = through
        prompt, *rest = [(self._ids(text), supervised) for text, supervised in pieces]
        return self._row(prompt[0] or self._bos, rest)

    def _marked(self, messages: list[Message], turns: list[int]) -> tuple[Row, Notes]:
        """The same by the template's `{% generation %}` marks, where earlier turns are rendered anew by later ones."""
        if turns[0] != next(i for i, message in enumerate(messages) if message["role"] == "assistant"):
            raise BadRow("the chat template rewrites the prompt once an answer follows; give the row as messages")
        if self._marked_template is None:
            own = self._tokenizer.chat_template
            marked = own if "{% generation" in own or "{%- generation" in own else training_chat_template(self._tokenizer)
            if marked is None:
                raise BadRow("the chat template rewrites earlier turns and does not mark the assistant's")
            self._marked_template = marked
        encoded = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._marked_template,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self._config.chat_template_kwargs,
        )
        ids, mask = self._known(encoded["input_ids"]), [bool(m) for m in encoded["assistant_masks"]]
        if not any(mask):
            raise BadRow("the chat template marks no token of the assistant")
        start = mask.index(True)
        for i in range(start + 1, len(ids)):  # the token that ends a turn belongs to it
            mask[i] = mask[i] or (mask[i - 1] and ids[i] in self._eos_ids)
        last = len(mask) - 1 - mask[::-1].index(True)
        runs = groupby(zip(ids[start : last + 1], mask[start:], strict=False), key=lambda pair: pair[1])
        pieces = [([token for token, _ in run], supervised) for supervised, run in runs]
        return self._row(ids[:start], pieces)

    def _row(self, prompt: list[int], pieces: list[tuple[list[int], bool]]) -> tuple[Row, Notes]:
        completion: list[int] = []
        mask: list[bool] = []
        for ids, supervised in pieces:
            ends = [i for i, token in enumerate(ids) if token in self._eos_ids]
            kept = ends[-1] + 1 if ends else len(ids)  # what a template writes after the end is never generated
            completion += ids
            mask += [supervised and i < kept for i in range(len(ids))]
        if not any(mask):
            raise BadRow("no token carries loss")
        length = len(mask) - mask[::-1].index(True)
        completion, mask = completion[:length], mask[:length]
        if completion[-1] not in self._eos_ids:
            completion.append(self._eos_ids[0])
            mask.append(True)
        if not prompt:
            mask[0] = False  # nothing comes before it that could predict it
            if not any(mask):
                raise BadRow("no token that carries loss has anything before it")
        prompt, cuts = self._fit_prompt(prompt)
        kept, more = self._fit_completion(len(prompt), completion, mask)
        row = Row(np.array(prompt, np.int32), np.array(completion[:kept], np.int32), np.array(mask[:kept], np.bool_))
        return row, cuts + more

    def _fit_prompt(self, ids: list[int]) -> tuple[list[int], Notes]:
        most = self._config.max_prompt_tokens
        if self._max_tokens is not None:
            most = min(most or self._max_tokens, self._max_tokens - 1)
        if most is None or len(ids) <= most:
            return ids, []
        if self._config.on_long_prompt == "keep_end":
            return ids[-most:], [("cut_prompt", f"the prompt's first {len(ids) - most} of {len(ids)} tokens were cut")]
        reason = f"the prompt has {len(ids)} tokens, over the limit of {most}"
        raise LongRow("long_prompt", reason, refused=self._config.on_long_prompt == "raise")

    def _fit_completion(self, prompt: int, ids: list[int], mask: list[bool]) -> tuple[int, Notes]:
        """How many of the completion's tokens stay."""
        if self._max_tokens is None or prompt + len(ids) <= self._max_tokens:
            return len(ids), []
        room = self._max_tokens - prompt
        if self._config.on_long_completion == "cut":
            if not any(mask[:room]):
                raise BadRow("no token that carries loss is left after the cut")
            return room, [("cut_completion", f"the completion was cut from {len(ids)} to {room} tokens")]
        reason = f"prompt and completion have {prompt + len(ids)} tokens, over the limit of {self._max_tokens}"
        raise LongRow("long_completion", reason, refused=self._config.on_long_completion == "raise")

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRow("it has half a character (a lone surrogate)") from None
        return self._known(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def _known(self, ids: list[int]) -> list[int]:
        if self._unknown is not None and self._unknown in ids:
            raise BadRow("it has characters that the tokenizer does not know")
        return ids


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRow(f"{column} must be text or a list of messages, not {type(value).__name__}")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise BadRow(f"{column}: a message is {{role: …, content: text}}, not {str(message)[:60]!r}")
        if message.get("role") not in _ROLES:
            raise BadRow(f"{column}: the role {message.get('role')!r} is none of {', '.join(_ROLES)}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _holds_prompt(conversation: Any) -> bool:
    first = conversation[0] if isinstance(conversation, (list, tuple)) and conversation else None
    return isinstance(first, dict) and first.get("role") != "assistant"


def _with_common_prompt(columns: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(columns.get("chosen"), str) or isinstance(columns.get("rejected"), str):
        raise BadRow("chosen and rejected are text: they need a prompt")
    chosen, rejected = _messages(columns.get("chosen"), "chosen"), _messages(columns.get("rejected"), "rejected")
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other or (one["role"] == "assistant" and shared == min(len(chosen), len(rejected)) - 1):
            break
        shared += 1
    if shared == 0 or shared in (len(chosen), len(rejected)):
        raise BadRow("without a prompt column, chosen and rejected must begin with the same messages and then differ")
    return {**columns, "prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
