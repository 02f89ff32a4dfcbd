"""The tags that models write around their thoughts, and texts without those thoughts."""

import re

THOUGHT_TAGS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "thoughts", "reason", "reasoning")),
    *((f"<{name}>", f"</{name}>") for name in ("seed:think", "mm:think", "antthinking", "scratchpad", "reflection")),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing tags. Upper and lower case are the same."""
ANSWER_TAGS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
"""Tags that some models write around the answer that follows a thought."""

_OPENING = "|".join(re.escape(opening) for opening, _ in THOUGHT_TAGS)
_CLOSING = "|".join(re.escape(closing) for _, closing in THOUGHT_TAGS)
_THOUGHT = re.compile(rf"(?:{_OPENING}).*?(?:{_CLOSING}|\Z)", re.I | re.S)
_FIRST_THOUGHTS = re.compile(rf"\s*(?:(?:{_OPENING})(?:(?!{_CLOSING}).)*(?:{_CLOSING})\s*)+", re.I | re.S)
_BARE_THOUGHT = re.compile(rf"\A.*(?:{_CLOSING})", re.I | re.S)
_ANSWER_TAG = re.compile("|".join(re.escape(tag) for pair in ANSWER_TAGS for tag in pair), re.I)
_LONGEST_OPENING = 40
_OPENING_TAG = re.compile(_OPENING, re.I)
_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)", re.M)
_ENDS_SENTENCE = re.compile(r"(?:[.!?…。！？:)\"”»*]|\n)[ \t]*\Z")


def without_thoughts(text: str) -> str:
    """A short text without thoughts, wherever they stand in it, closed or not."""
    text = _THOUGHT.sub("", text)
    return _ANSWER_TAG.sub("", _BARE_THOUGHT.sub("", text)).strip()


def without_first_thoughts(text: str) -> str:
    """An answer without the thoughts with which it begins."""
    start = text[:_LONGEST_OPENING].lstrip()[:1]
    if start not in ("<", "[", "◁") or (thoughts := _FIRST_THOUGHTS.match(text)) is None:
        return text
    return text[thoughts.end() :]


def ends_bare_thought(before: str, after: str) -> bool:
    """Whether a closing tag between these texts ends a thought whose opening tag was part of the prompt.

    A text that only talks about tags has an opening tag, too, or quotes the closing one, or shows it in code.
    """
    if not before.strip() or _OPENING_TAG.search(before) or len(_FENCE.findall(before)) % 2:
        return False
    line = before.rpartition("\n")[2]
    if line.count("`") % 2 or (after and after[0] in "`'\"”’».,;:!?)"):
        return False
    begins_line = not line.strip()
    is_attached = not after[:1].isspace() and _ENDS_SENTENCE.search(before) is not None
    return begins_line or after.lstrip(" \t\r")[:1] in ("", "\n") or is_attached
