"""A conversation → prompts and answers as token ids.

What stands before an answer in a row is, id by id, what the model is asked when it is sampled after the same messages: where
a template or a tokenizer writes a history otherwise than it wrote the answers in it, a row ends and the next turn begins one
of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from posttrain.data.encoding.messages import Conversation, Turn
from posttrain.data.encoding.prompts import Notes
from posttrain.data.encoding.template import Template
from posttrain.data.encoding.text import Ids, Text
from posttrain.data.rows import BadRow

_OPENING = re.compile(r"(<(?![/|｜])[^<>\s]+>|\[[A-Z_]+\])(\s*)$")
"""A tag that a generation prompt opens, such as <think>, so that an answer begins inside of it."""


@dataclass(slots=True)
class Draft:
    """A row before its lengths are looked at."""

    prompt: list[int]
    completion: list[int] = field(default_factory=list[int])
    mask: list[bool] = field(default_factory=list[bool])

    def add(self, ids: Sequence[int], *, learnt: bool) -> None:
        """More of the completion."""
        self.completion += ids
        self.mask += [learnt] * len(ids)

    def begins(self, ids: list[int]) -> bool:
        """Whether some ids go on from all that it has."""
        have = len(self.prompt) + len(self.completion)
        return len(ids) >= have and ids[: len(self.prompt)] == self.prompt and ids[len(self.prompt) : have] == self.completion


class Turns:
    """Makes drafts of conversations.

    Args:
        template: of the tokenizer.
        text: the tokenizer.
        end: the token of `text.ends` that is put behind an answer to which the template writes none.
    """

    def __init__(self, template: Template, text: Text, end: int) -> None:
        self._template, self._text, self._end = template, text, end
        self._end_name = str(text.tokenizer.convert_ids_to_tokens(end))

    def asked(self, talk: Conversation, turn: int | None = None) -> str:
        """The text that is asked before a turn, or after all of them."""
        if talk.begun is not None and turn in (None, talk.first):
            before = talk.messages(talk.first)
            begun = {**talk.turns[talk.first].message, "content": talk.begun}
            return self._template.continued([*before, begun], talk.tools)
        return self._template.render(talk.messages(turn), talk.tools, generate=True)

    def drafts(self, talk: Conversation, ids: Ids) -> tuple[list[Draft], Notes]:
        """The rows of a conversation's learnt turns.

        Raises:
            BadRow: the template refuses it, drops a part that matters, or asks otherwise than it answers.
        """
        drafts, notes = list[Draft](), Notes()
        done: tuple[str, list[int]] = ("", [])
        learnt = talk.learnt
        for turn in learnt:
            asked = self.asked(talk, turn)
            prompt = self._ids(ids, asked, done)
            done = self._up_to_a_special(asked, prompt, done) if turn != learnt[-1] else done
            answer, more = self._answer(talk, turn, asked)
            notes += [note for note in more if note not in notes]
            if not drafts or not drafts[-1].begins(prompt):
                drafts.append(Draft(prompt or self._text.leading))
            else:
                have = len(drafts[-1].prompt) + len(drafts[-1].completion)
                drafts[-1].add(prompt[have:], learnt=False)
            said = self._continuation(ids, asked, prompt, answer)
            drafts[-1].add(self._to_its_end(said, talk.turns[turn], ids), learnt=True)
        return drafts, notes

    def _answer(self, talk: Conversation, turn: int, asked: str) -> tuple[str, Notes]:
        """What the template writes after what is asked; where it asks for thoughts and drops them from answers, the answer as
        it was given.
        """
        said = talk.turns[turn]
        through = self._template.render(talk.messages(turn + 1), talk.tools)
        answer = through[len(asked) :] if through.startswith(asked) else None
        content = said.content[len(talk.begun) :] if talk.begun is not None and turn == talk.first else said.content
        opened = _OPENING.search(asked)
        inside = None if opened is None else _inside(said, content, opened[1])
        if inside is not None:
            if answer is not None and _bare(answer).startswith(_bare(inside)):
                return answer, []
            if said.more.get("tool_calls"):
                raise BadRow("the template asks for thoughts, and drops them before calls of tools")
            return inside.lstrip() + self._end_name, []
        if answer is None and opened is not None:
            raise BadRow(
                f"the template asks for {opened[1]}, and the answer does not begin with it: begin it so, or ask without, "
                "data.chat_template_kwargs, for instance {enable_thinking: false}, where the template knows it"
            )
        if answer is None:
            raise BadRow(
                f"the chat template asks otherwise than it answers: asked {asked[-40:]!r}, answered {through[-60:]!r}"
            )
        if said.reasoning is not None and _bare(said.reasoning) not in _bare(answer):
            raise BadRow("the chat template drops what was thought before the answer (reasoning_content)")
        if _bare(content) not in _bare(answer):
            if not answer.strip():
                raise BadRow("the chat template drops the answer")
            return answer, [("changed_answer", "the chat template changes or drops a part of the answer")]
        return answer, []

    def _continuation(self, ids: Ids, asked: str, prompt: list[int], answer: str) -> list[int]:
        """The ids that follow a prompt's: of the whole, where it begins with them, and else of the answer by itself."""
        if self._text.joins:
            return ids.ids(answer)
        whole = ids.ids(asked + answer)
        return whole[len(prompt) :] if whole[: len(prompt)] == prompt else ids.ids(answer)

    def _to_its_end(self, answer: list[int], said: Turn, ids: Ids) -> list[int]:
        """An answer up to and with the token that ends it; ends in its own text, where they are to be tokens, stay."""
        own = 0
        if ids is self._text and self._text.special_name.search(said.content):
            own = sum(i in self._text.ends for i in ids.ids(said.content))
        start = 0
        for _ in range(own + 1):
            there = [answer.index(i, start) for i in self._text.ends if i in answer[start:]]
            if not there:
                return [*answer, self._end]
            start = min(there) + 1
        return answer[:start]

    def _ids(self, ids: Ids, text: str, done: tuple[str, list[int]]) -> list[int]:
        if done[0] and text.startswith(done[0]):
            return done[1] + ids.ids(text[len(done[0]) :])
        return ids.ids(text)

    def _up_to_a_special(self, text: str, prompt: list[int], done: tuple[str, list[int]]) -> tuple[str, list[int]]:
        """What of a text need not be encoded again when it goes on: up to its last special token."""
        if not self._text.joins:
            return done
        last = max(self._text.special_name.finditer(text), key=re.Match.end, default=None)
        at = next((i for i in range(len(prompt) - 1, -1, -1) if prompt[i] in self._text.special), None)
        if last is None or at is None or self._text.special[prompt[at]] != last[0]:
            return done
        return text[: last.end()], prompt[: at + 1]


def _inside(said: Turn, content: str, tag: str) -> str | None:
    """What of an answer stands inside of a tag that is open already, where it begins with that tag."""
    if content.lstrip().startswith(tag):
        return content.lstrip()[len(tag) :]
    if said.reasoning is not None:
        closed = tag[0] + "/" + tag[1:]
        return f"{said.reasoning}\n{closed}\n\n{content}"
    return None


def _bare(text: str) -> str:
    return "".join(text.split())
