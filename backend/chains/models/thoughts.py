"""Finds the thoughts that a model's server leaves in the text, and streams them as reasoning.

A thought stands at the very beginning of the text, or directly after another thought: `<think>...</think>`, the
channels of gpt-oss, and their like. A tag anywhere else is text. Some templates write the opening tag themselves, so
that only the closing tag comes: then `ThoughtEnd` says that the text so far was a thought.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cache
from typing import Literal

from typing_extensions import override

from backend.chains.models.prompt import Finish, Output, Prompt, Quote, Reasoning, Text, ThoughtEnd, Tokens
from backend.chains.models.provider import ChatModel
from backend.chains.text.thought_tags import ANSWER_TAGS, THOUGHT_TAGS, ends_bare_thought
from backend.errors import RunError

_LONGEST_BLANK = 64
"""The most blanks at the end of a thought that are left out."""
_LONGEST_START = 1_000
"""The most blanks before a thought, and the longest header of a channel, in characters."""
_MAX_BARE_ENDS = 20
"""The most closing tags in an answer that are looked at."""
_CLOSING = tuple(closing for _, closing in THOUGHT_TAGS)
_BARE_ENDS = tuple(closing for closing in _CLOSING if closing[0] == "<")
_MAY_END = re.compile(rf"<(?:[{re.escape(''.join({closing[1] for closing in _BARE_ENDS}))}]|\Z)", re.I)
"""Matches where a closing tag may begin: it tells most text with `<` from tags at once."""
# The channels of gpt-oss: `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`.
_CHANNEL_STARTS = ("<|channel|>", "<|start|>", "<|message|>")
_CHANNEL_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
_HIDDEN_CHANNEL = re.compile(r"<\|channel\|>\s*(?:analysis|commentary)\b", re.I)
# The same if the server left the tokens out: `analysisThe user asks ...assistantfinalIt is 45 days.`
_BARE_CHANNEL = re.compile(r"analysis(?=[A-Z])")
_BARE_CHANNEL_END = "assistantfinal"

State = Literal["begin", "body", "header", "between", "answer"]
"""Before the first text; inside a thought or tagged answer; in a channel's header; between channels; in the answer."""


class ThoughtFilter:
    """Turns the outputs of one call into outputs whose thoughts are Reasoning. The result doesn't depend on how the
    stream cuts the text.

    `tags` are an opening and a closing tag of the model's own. `begins_inside` is the closing tag of a thought with
    which the answer probably begins. With `finds_bare_end`, a closing tag without an opening one ends a thought, too.
    """

    def __init__(
        self,
        tags: tuple[str, str] | None = None,
        begins_inside: str | None = None,
        *,
        finds_bare_end: bool = True,
    ) -> None:
        self._pairs = THOUGHT_TAGS if tags is None or not tags[0] else (tags, *THOUGHT_TAGS)
        self._state: State = "begin"
        self._buffer: str = ""
        self._is_after_thought = False
        self._bare_ends_left = _MAX_BARE_ENDS if finds_bare_end else 0
        self._text: list[str] = []
        """The text so far, as long as it may turn out to be a thought, or the other way round."""
        self._kind: type[Text | Reasoning] = Text
        self._stops: tuple[str, ...] = ()
        self._after_stop: State = "answer"
        self._is_fresh = False
        self._ends_with_thought = False
        self._needs_break = False
        self._expected = begins_inside
        self.bare_end: str | None = None
        """The closing tag that came without an opening one."""
        self.was_wrong = False
        """Whether the answer didn't begin inside a thought, although that was expected."""
        if begins_inside is not None:
            self._start_body(Reasoning, (begins_inside,), "begin")

    def passes(self, text: str) -> bool:
        """Whether this text needs no closer look: the answer has begun, and no tag begins here."""
        if self._buffer or self._state != "answer":
            return False
        if self._bare_ends_left:
            if "<" in text and _MAY_END.search(text):
                return False
            self._text.append(text)
        return True

    def outputs(self, output: Output) -> Iterator[Output]:
        """What the filter makes of the next output. Text that may begin a tag is held back."""
        match output:
            case Text(text):
                self._buffer += text
                yield from self._run(closing=False)
            case Tokens():
                yield output
            case Reasoning():
                # The provider separates thoughts itself: no closing tag comes alone.
                self._bare_ends_left = 0
                if self._expected is not None and self._is_fresh:
                    self._expected, self._state = None, "begin"
                if self._buffer.strip():
                    yield from self.close()
                yield output
            case Finish():
                yield from self._finish(output)
            case Quote() | ThoughtEnd():
                yield from self.close()
                yield output

    def close(self) -> Iterator[Output]:
        """The text that was held back; no more follows."""
        return self._run(closing=True)

    def _finish(self, finish: Finish) -> Iterator[Output]:
        """The rest of the text and the finish reason. A thought that was never closed is an answer that was cut."""
        yield from self.close()
        if finish.reason == "stop" and self._state == "body" and self._kind is Reasoning:
            if self._expected is None:
                finish = Finish("length")
            elif self._text:
                # It answered without a thought this time.
                self.was_wrong = True
                yield Text("".join(self._text))
        self._state = "answer"
        yield finish

    def _run(self, *, closing: bool) -> Iterator[Output]:
        before = None
        while self._buffer and before != (self._state, self._buffer):
            before = (self._state, self._buffer)
            match self._state:
                case "begin":
                    self._begin(closing=closing)
                case "body":
                    yield from self._body(closing=closing)
                case "header":
                    self._channel_header(closing=closing)
                case "between":
                    self._between_channels(closing=closing)
                case "answer":
                    yield from self._answer(closing=closing)

    def _begin(self, *, closing: bool) -> None:
        """At the beginning, or after a thought: decide what begins here."""
        rest = self._buffer.lstrip()
        if self._is_after_thought:
            self._buffer = rest
        answers = ANSWER_TAGS if self._is_after_thought else ()
        if len(self._buffer) - len(rest) >= _LONGEST_START:
            self._state = "answer"
        elif (pair := _pair_at_start(rest, self._pairs)) is not None:
            self._buffer = rest[len(pair[0]) :]
            self._start_body(Reasoning, (pair[1],), "begin")
        elif (pair := _pair_at_start(rest, answers)) is not None:
            self._buffer = rest[len(pair[0]) :]
            self._start_body(Text, (pair[1],), "answer")
        elif _tag_at_start(rest, _CHANNEL_STARTS):
            self._buffer, self._state = rest, "header"
        elif _BARE_CHANNEL.match(rest):
            self._buffer = rest.removeprefix("analysis")
            self._start_body(Reasoning, (_BARE_CHANNEL_END,), "begin")
        elif (stray := _tag_at_start(rest, _CLOSING)) is not None:
            self._buffer, self._is_after_thought = rest[len(stray) :], True
        elif closing or not self._may_become_tag(rest, answers):
            self._state = "answer"

    def _may_become_tag(self, rest: str, answers: tuple[tuple[str, str], ...]) -> bool:
        if rest == "analysis" or "analysis".startswith(rest):
            return True
        tags = (*(tag for pair in self._pairs for tag in pair), *(opening for opening, _ in answers), *_CHANNEL_STARTS)
        return any(_is_prefix(rest, tag) for tag in tags)

    def _start_body(self, kind: type[Text | Reasoning], stops: tuple[str, ...], after: State) -> None:
        self._kind, self._stops, self._after_stop, self._state = kind, stops, after, "body"
        self._is_fresh = True
        self._needs_break = kind is Reasoning and self._ends_with_thought

    def _body(self, *, closing: bool) -> Iterator[Output]:
        """A thought, or an answer that ends with a tag: up to one of `_stops`, without the blanks around it."""
        text = self._buffer
        if self._is_fresh:
            openings = tuple(opening for opening, tag in self._pairs if tag == self._expected)
            text = text.lstrip()
            # The opening tag may come after all.
            while (opening := _tag_at_start(text, openings)) is not None:
                text = text[len(opening) :].lstrip()
            if text and not closing and any(_is_prefix(text, opening) for opening in openings):
                self._buffer = text
                return
            self._is_fresh = not text
        found = _first(text, self._stops)
        end = found[0] if found is not None else len(text) if closing else len(text) - _undecided(text, self._stops)
        ready = _without_end(text[:end]) if self._kind is Reasoning else text[:end]
        if ready:
            if self._expected is not None:
                self._text.append(ready)
            yield self._kind(f"\n\n{ready}" if self._needs_break else ready)
            self._needs_break, self._ends_with_thought = False, self._kind is Reasoning
        if found is None:
            self._buffer = "" if closing else text[len(ready) :]
            return
        self._buffer = text[end:] if found[1] in _CHANNEL_STARTS else text[end + len(found[1]) :]
        self._is_after_thought, self._expected, self._bare_ends_left = True, None, 0
        self._text.clear()
        self._state = self._after_stop

    def _channel_header(self, *, closing: bool) -> None:
        header, found, body = self._buffer.partition("<|message|>")
        if found:
            self._buffer = body
            self._start_body(Reasoning if _HIDDEN_CHANNEL.search(header) else Text, _CHANNEL_ENDS, "between")
        elif closing or len(header) > _LONGEST_START:
            self._state = "answer"

    def _between_channels(self, *, closing: bool) -> None:
        self._buffer = rest = self._buffer.lstrip()
        if _tag_at_start(rest, _CHANNEL_STARTS):
            self._state = "header"
        elif (tag := _tag_at_start(rest, _CHANNEL_ENDS)) is not None:
            self._buffer = rest[len(tag) :]
        elif rest and (closing or not any(_is_prefix(rest, tag) for tag in (*_CHANNEL_STARTS, *_CHANNEL_ENDS))):
            self._start_body(Text, _CHANNEL_ENDS, "between")

    def _answer(self, *, closing: bool) -> Iterator[Output]:
        """The answer's text. Only a closing tag without an opening one is looked for."""
        text = self._buffer
        found = _first(text, _BARE_ENDS) if self._bare_ends_left else None
        if found is None:
            held = 0 if closing or not self._bare_ends_left else _undecided(text, _BARE_ENDS)
            end = len(text) - held
        else:
            end = found[0] + len(found[1])
            if not closing and not text[end:].strip(" \t\r") and len(text) - end < _LONGEST_BLANK:
                return
            self._bare_ends_left -= 1
            if ends_bare_thought("".join(self._text) + text[: found[0]], text[end:]):
                self.bare_end, self._bare_ends_left = found[1], 0
                self._text.clear()
                self._buffer, self._is_after_thought, self._state = text[end:], True, "begin"
                if found[0]:
                    yield Text(text[: found[0]])
                yield ThoughtEnd()
                return
        self._buffer = text[end:]
        if end:
            if self._bare_ends_left:
                self._text.append(text[:end])
            yield Text(text[:end])


class ThinkingModel(ChatModel):
    """The same model, with the thoughts in its text as Reasoning. `tags` are its own tags; an empty opening tag means
    that its answers begin inside a thought. A model that closed a thought without opening it probably does so again.
    """

    writes = True

    def __init__(self, model: ChatModel, tags: tuple[str, str] | None = None) -> None:
        self._model = model
        self._tags = tags
        self._begins_inside = tags[1] if tags is not None and not tags[0] else None

    @override
    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        thoughts = self._filter(prompt)
        try:
            async with aclosing(self._model.stream(prompt)) as outputs:
                passes = thoughts.passes
                async for output in outputs:
                    if isinstance(output, Text) and passes(output.text):
                        yield output
                    else:
                        for piece in thoughts.outputs(output):
                            yield piece
        except RunError:
            for piece in thoughts.close():
                yield piece
            raise
        for piece in thoughts.close():
            yield piece
        if thoughts.bare_end is not None:
            self._begins_inside = thoughts.bare_end
        elif thoughts.was_wrong and self._tags is None:
            self._begins_inside = None

    def _filter(self, prompt: Prompt) -> ThoughtFilter:
        # A server that holds a model to a schema lets it write nothing before the JSON.
        has_schema = prompt.parameters.response_schema is not None
        return ThoughtFilter(self._tags, None if has_schema else self._begins_inside, finds_bare_end=not has_schema)


def _tag_at_start(text: str, tags: tuple[str, ...]) -> str | None:
    return next((tag for tag in tags if text[: len(tag)].casefold() == tag.casefold()), None)


def _pair_at_start(text: str, pairs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    return next((pair for pair in pairs if _tag_at_start(text, pair[:1])), None)


def _is_prefix(text: str, tag: str) -> bool:
    return len(text) < len(tag) and tag[: len(text)].casefold() == text.casefold()


@cache
def _pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tags)), re.I)


def _first(text: str, tags: tuple[str, ...]) -> tuple[int, str] | None:
    """Position and text of the first of these tags."""
    match = _pattern(tags).search(text)
    return (match.start(), match.group()) if match is not None else None


def _undecided(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of the text may be the beginning of a tag."""
    longest, first = _bounds(tags)
    tail = text[-longest:]
    for match in first.finditer(tail):
        rest = tail[match.start() :]
        if any(_is_prefix(rest, tag) for tag in tags):
            return len(rest)
    return 0


@cache
def _bounds(tags: tuple[str, ...]) -> tuple[int, re.Pattern[str]]:
    """How many characters of one of these tags may be there at most without the last one, and what finds where one
    may begin."""
    return max(map(len, tags)) - 1, re.compile("|".join({re.escape(tag[0]) for tag in tags}), re.I)


def _without_end(thought: str) -> str:
    """The thought without the blanks at its end."""
    head, end = thought[:-_LONGEST_BLANK], thought[-_LONGEST_BLANK:]
    return head + end.rstrip()
