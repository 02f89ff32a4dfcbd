"""A provider's own words for people: on one line, short, and without anything that looks like a key."""

import base64
import re
import unicodedata
from collections.abc import Iterable

from backend.chains.models.provider import Endpoint

MAX_DETAIL = 500
"""The most characters of a provider's words that a caller is shown."""
_MIN_SECRET = 6
"""A shorter configured value is no secret: it would blank out words."""
_LONG = 4_000
"""Characters that are looked at."""

_SECRETS = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/\s@\"']*@", re.I), r"\1"),
    (re.compile(r"\b(bearer)\s+[^\s\"',;]{4,}", re.I), r"\1 ***"),
    (re.compile(r"\b(basic)\s+[a-z0-9+/=]{12,}", re.I), r"\1 ***"),
    (
        re.compile(
            r"((?:api|access|auth|secret|private|subscription)?[-_ ]?(?:keys?|tokens?|secret|password|passwd|pwd)"
            r"(?: provided| given| is)?[\"']?\s*[:=]\s*[\"'`]?)"
            # Without bounds, a long text of many such words would take the square of its length.
            r"(?=[^\s\"'`,;&}]{0,200}[\d*])(?=[^\s\"'`,;&}]{0,200}[a-z*])[^\s\"'`,;&}]{6,}",
            re.I,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(authorization[\"']?\s*[:=]\s*[\"']?)[^\s\"',;]{4,}", re.I), r"\1***"),
    # The beginnings of vendors' keys, also of those that an error masks in the middle.
    (
        re.compile(
            r"\b(?:sk|pk|rk|gsk|xai|pplx|csk|dsk|nvapi|hf|fw|r8|tgp|ghp|gho|ghs|github_pat|glpat|xox[abps]|ya29|key)"
            r"[-_.][\w*….-]{5,}[\w*…]"
        ),
        "***",
    ),
    (re.compile(r"\b(?:AIza|AKIA|ASIA)[\w*…-]{8,}"), "***"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}"), "***"),
)
_LONG_WORD = re.compile(r"[A-Za-z0-9_+/=-]{32,}")
_ID = re.compile(r"(?i)(?:req|chatcmpl|msg|resp|run|gen)[-_].*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def shown_words(text: str, endpoint: Endpoint, longest: int = MAX_DETAIL) -> str:
    """The text on one line, at most `longest` characters, without keys: neither the configured ones nor others."""
    text = text[:_LONG]
    for secret in _configured(endpoint):
        text = text.replace(secret, "***")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = _LONG_WORD.sub(lambda match: "***" if _looks_random(match.group()) else match.group(), text)
    text = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def _configured(endpoint: Endpoint) -> Iterable[str]:
    """The values of the settings that are secret, longest first."""
    secrets = [endpoint.key.get_secret_value()] if endpoint.key is not None else []
    secrets += endpoint.headers.values()
    # `Basic`, and user and password in Base64.
    for login in (endpoint.login or "").split()[1:]:
        secrets += [login, *base64.b64decode(login).decode("utf-8", "replace").split(":", 1)]
    return sorted((secret.strip() for secret in secrets if len(secret.strip()) >= _MIN_SECRET), key=len, reverse=True)


def _looks_random(word: str) -> bool:
    """Whether a long word has letters and digits as keys have, and is no id of a request."""
    return any(c.isdigit() for c in word) and any(c.isalpha() for c in word) and _ID.fullmatch(word) is None
