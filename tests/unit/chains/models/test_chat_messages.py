"""The messages that a model is sent: what strict servers take."""

import itertools
import random

import pytest

from backend.chains.models._chat_messages import alternating, chat_messages
from backend.chains.models.prompt import Image, Message, Parameters, Prompt
from backend.config.quirks import ModelQuirks

PARAMETERS = Parameters(max_tokens=10)
PIXEL, DOT = Image("image/png", b"1"), Image("image/png", b"2")


def user(text: str, *images: Image, hidden: int = 0) -> Message:
    return Message("user", text, images, hidden)


def bot(text: str) -> Message:
    return Message("assistant", text)


def prompt(*history: Message, content: str = "now", system: str = "", images: tuple[Image, ...] = ()) -> Prompt:
    return Prompt(system, history, content, content, PARAMETERS, images)


def test_an_unanswered_message_and_the_next_are_one() -> None:
    assert chat_messages(prompt(user("a"), bot("b"), user("c"))) == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c\n\nnow"),
    ]


def test_a_message_that_is_repeated_is_said_once() -> None:
    assert chat_messages(prompt(user("now"), user("now "))) == [("user", "now")]


def test_blank_messages_are_left_out() -> None:
    assert chat_messages(prompt(user("a"), bot("\n\n"), user(" "), bot(""), system=" \n")) == [("user", "a\n\nnow")]


def test_the_user_begins() -> None:
    assert chat_messages(prompt(bot("Hello!"), bot("I am here."), user("a"), bot("b"), system="Be brief.")) == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "now"),
    ]


def test_two_answers_in_a_row_are_one() -> None:
    assert chat_messages(prompt(user("a"), bot("b"), bot("c")))[1] == ("assistant", "b\n\nc")


def test_images_of_merged_messages_stay() -> None:
    (role, content), *more = chat_messages(prompt(user("", PIXEL), user("look", DOT, hidden=1), images=(PIXEL,)))
    assert (role, more) == ("user", [])
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert content[0]["text"] == "look\n\nnow\n[1 picture, not shown here]"


def test_an_image_alone_has_no_blank_text() -> None:
    assert [part["type"] for part in chat_messages(prompt(content=" ", images=(PIXEL,)))[0][1]] == ["image_url"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_role_of_the_system_prompt(role: str) -> None:
    quirks = ModelQuirks.model_validate({"system_role": role})
    assert chat_messages(prompt(system="Be brief."), quirks) == [(role, "Be brief."), ("user", "now")]


def test_a_system_prompt_may_begin_the_first_message() -> None:
    quirks = ModelQuirks(system_role="user")
    sent = chat_messages(prompt(user("a"), bot("b"), system="Be brief."), quirks)
    assert sent == [("user", "Be brief.\n\na"), ("assistant", "b"), ("user", "now")]


def test_messages_stay_apart_where_that_is_wanted() -> None:
    assert chat_messages(prompt(user("a"), user("b")), ModelQuirks(merge=False)) == [
        ("user", "a"),
        ("user", "b"),
        ("user", "now"),
    ]


def test_whatever_the_history_is_roles_alternate_and_nothing_is_blank() -> None:
    chance = random.Random(7)
    for _ in range(500):
        history = [
            Message(chance.choice(("user", "assistant")), chance.choice(("", " ", "\n", "x", "y")))
            for _ in range(chance.randrange(8))
        ]
        sent = alternating([*history, user("now")])
        roles = [message.role for message in sent]
        assert roles[0] == roles[-1] == "user"
        assert all(one != other for one, other in itertools.pairwise(roles))
        assert all(message.text.strip() for message in sent)
        assert all(m.text.strip() in "\n\n".join(s.text for s in sent) for m in history if m.role == "user")
