"""What is taken for a picture, and how many of a conversation are shown."""

import base64

import pytest

from backend.chains.history.images import images_that_fit, read_image
from backend.chains.models.prompt import Image, Message


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("image/png", b"\x89PNG\r\n\x1a\n..."),
        ("image/jpeg", b"\xff\xd8\xff\xe0..JFIF"),
        ("image/jpeg", b"\xff\xd8\xff\xdb"),
        ("image/gif", b"GIF87a..."),
        ("image/gif", b"GIF89a..."),
        ("image/webp", b"RIFF\x24\x00\x00\x00WEBPVP8 "),
    ],
)
def test_a_picture_is_known_by_its_beginning(media_type: str, data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    image = read_image(media_type, encoded)
    assert (image.media_type, image.data) == (media_type, data)
    assert image.url == f"data:{media_type};base64,{encoded}"


@pytest.mark.parametrize(
    ("history_tokens", "own_count", "expected"),
    [(6_000, 0, 8), (6_000, 3, 5), (6_000, 8, 0), (1_000, 0, 2), (1_000, 7, 1), (499, 0, 0), (0, 0, 0)],
)
def test_the_room_for_earlier_pictures(history_tokens: int, own_count: int, expected: int) -> None:
    assert images_that_fit(history_tokens, own_count) == expected


def test_a_note_stands_for_what_is_not_shown() -> None:
    image = Image("image/png", b"PNG")
    assert Message("user", "Hi", (image,)).text_for_model == "Hi"
    assert Message("user", "Hi", (image,)).without_images().text_for_model == "Hi\n[1 picture, not shown here]"
    assert (
        Message("user", "", (image,), hidden_images=1).without_images().text_for_model == "[2 pictures, not shown here]"
    )
    assert Message("user", "Hi", hidden_images=3).without_images() == Message("user", "Hi", hidden_images=3)
