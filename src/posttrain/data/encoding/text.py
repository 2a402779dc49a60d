"""Text as token ids. The name of a special token in a row's text is text, as long as the recipe does not say otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar

from tokenizers import Tokenizer

from posttrain.data.rows import BadRow

T = TypeVar("T")
# Private characters, an index between two of each kind: of a row's text, and of what a template writes.
_HIDDEN, _OWN, _FIRST = "\ue000\ue001", "\ue002\ue003", 0xE100


class Ids(Protocol):
    """What makes token ids of a text."""

    def ids(self, text: str) -> list[int]:
        """Token ids, without special tokens around them.

        Raises:
            BadRow: the tokenizer has no ids for some of it.
        """
        ...


class Text:
    """A tokenizer of transformers, and what is particular about it.

    Args:
        tokenizer: of transformers.
        ends: ids that end an answer.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int]) -> None:
        self.tokenizer, self.ends = tokenizer, tuple(ends)
        added = tokenizer.added_tokens_decoder
        self.special = {i: str(token) for i, token in added.items() if token.special}
        self.special_name = pattern(self.special.values())
        self._protected = pattern(self._text_only())
        self.leading = leading_specials(tokenizer)
        self.joins = not _has_dummy_space(tokenizer) and not any(
            token.lstrip or token.rstrip or token.single_word or (token.special and token.normalized)
            for token in added.values()
        )
        """Whether ids of a whole are those of its parts, where one ends with a special token."""
        other = {tokenizer.bos_token_id, tokenizer.pad_token_id, *self.ends}
        self._unknown = None if tokenizer.unk_token_id in other else tokenizer.unk_token_id
        self._backend = _backend_alone(tokenizer)

    def ids(self, text: str) -> list[int]:
        """See `Ids`."""
        backend, whole = self._backend, _whole(text)
        if backend is None or backend.truncation or backend.padding or backend.encode_special_tokens:
            return self.known(self.tokenizer(whole, add_special_tokens=False, verbose=False).input_ids)
        return self.known(backend.encode(whole, add_special_tokens=False).ids)

    def known(self, ids: list[int]) -> list[int]:
        """The same ids.

        Raises:
            BadRow: the unknown token is among them.
        """
        if self._unknown is not None and self._unknown in ids:
            raise BadRow("it has characters that the tokenizer does not know")
        return ids

    def names(self, value: Any) -> list[str]:
        """Names of special tokens in the texts of a value of JSON, but for pairs of tags such as <think> and </think>."""
        return list(dict.fromkeys(name for text in texts_in(value) for name in self._protected.findall(text)))

    @cached_property
    def as_text(self) -> TextOnly:
        """The same for rows that have names of special tokens in their text."""
        return TextOnly(self, self._protected)

    def _text_only(self) -> Iterable[str]:
        """Special tokens, but for those that come in pairs, which answers write: they are special in few tokenizers."""
        tokenizer, names = self.tokenizer, set(self.special.values())
        ends = {self.special.get(i) for i in self.ends}
        named = ends | {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
        return (name for name in names if name in named or not _in_pair(name, names))


class TextOnly:
    """Encodes as text what `hide` has hidden before a template was rendered around it.

    It has a copy of the tokenizer in which special tokens have other names, under which the template's own are given to it:
    their old names are text to that copy, and everything else is encoded as the tokenizer does it.
    """

    def __init__(self, text: Text, protected: re.Pattern[str]) -> None:
        backend = getattr(text.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise BadRow(
                "it has the name of a special token in its text, which this kind of tokenizer cannot write as text; "
                "data.special_tokens: tokens takes it for the token"
            )
        self._text, self._protected = text, protected
        self._names = list(text.special.values())
        self._order = {name: i for i, name in enumerate(self._names)}
        self._hidden = re.compile(f"{_HIDDEN[0]}(.){_HIDDEN[1]}")
        self._twin = _renamed(backend, {name: _marked(_OWN, i) for name, i in self._order.items()})

    def hide(self, value: T) -> T:
        """The same with what stands for the names in its texts."""

        def hidden(text: str) -> str:
            if self._hidden.search(text):
                raise BadRow("it has characters of private use beside names of special tokens")
            return self._protected.sub(lambda found: _marked(_HIDDEN, self._order[found[0]]), text)

        return each_text(value, hidden)

    def ids(self, text: str) -> list[int]:
        """See `Ids`."""
        own = self._text.special_name.sub(lambda found: _marked(_OWN, self._order[found[0]]), _whole(text))
        shown = self._hidden.sub(lambda found: self._names[ord(found[1]) - _FIRST], own)
        return self._text.known(self._twin.encode(shown, add_special_tokens=False).ids)


def _renamed(backend: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy in which some tokens have other names, and the same ids."""
    made = json.loads(backend.to_str())
    model, made["post_processor"], made["truncation"], made["padding"] = made["model"], None, None, None
    for token in made["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], special=False, normalized=False)
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return Tokenizer.from_str(json.dumps(made))


def each_text(value: T, change: Callable[[str], str]) -> T:
    """A value of JSON with every text in it changed."""
    if isinstance(value, str):
        return change(value)  # type: ignore[return-value]
    if isinstance(value, (list, tuple)):
        return [each_text(one, change) for one in value]  # type: ignore[return-value]
    if isinstance(value, dict):
        return {name: each_text(one, change) for name, one in value.items()}  # type: ignore[return-value]
    return value


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts_in(one)


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Any of some names, the longest first; nothing where there is none."""
    longest = sorted(filter(None, names), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")


def leading_specials(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, mask = encoded["input_ids"], encoded["special_tokens_mask"]
    return ids[: next((i for i, special in enumerate(mask) if not special), 0)]


def _backend_alone(tokenizer: Any) -> Tokenizer | None:
    """What transformers' tokenizer hands a text to, where that is all it does with one: it takes five times as long."""
    kind, backend = type(tokenizer), getattr(tokenizer, "backend_tokenizer", None)
    steps = [getattr(getattr(kind, name, None), "__module__", None) for name in ("__call__", "_encode_plus")]
    plain = ["transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers"]
    handed_on = isinstance(backend, Tokenizer) and steps == plain and not tokenizer.split_special_tokens
    return backend if handed_on else None


def _has_dummy_space(tokenizer: Any) -> bool:
    """Whether a text is encoded as if a space stood before it, or otherwise than by its characters alone."""
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False).input_ids)[:1]
    return not getattr(tokenizer, "is_fast", False) or not first or first[0][:1] in ("▁", "Ġ", " ")


def _in_pair(name: str, names: set[str]) -> bool:
    if not (name.startswith("<") and name.endswith(">")):
        return False
    return (name[:1] + "/" + name[1:] if name[1:2] != "/" else name[:1] + name[2:]) in names


def _marked(kind: str, index: int) -> str:
    return f"{kind[0]}{chr(_FIRST + index)}{kind[1]}"


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("it has half a character (a lone surrogate)") from None
    return text
