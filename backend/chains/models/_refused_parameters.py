"""Which parameters a refusal names as ones that the server doesn't take."""

import re

from backend.chains.models._meanings import RefusedCall, meaning_of, status_in

_NAMES = {
    "max_tokens": r"max_tokens",
    "max_completion_tokens": r"max_completion_tokens",
    "stream_options": r"stream_options(?:\.include_usage)?|include_usage",
    "temperature": r"temperature",
    "top_p": r"top_p|topp",
    "seed": r"(?:random_)?seed",
    "stop": r"stop(?:_?sequences)?",
    "reasoning_effort": r"reasoning(?:_effort|\.effort)?|thinking(?:[_ ](?:level|budget|config|type))?|effort",
    "response_schema": r"response_(?:format|schema|mime_type)|json_schema|output_config\.format|json mode",
}
_PATTERNS = {name: re.compile(rf"(?<![\w.])(?:{pattern})(?![\w])") for name, pattern in _NAMES.items()}
"""Our parameters, and the two names of a limit, as servers call them."""
_REFUSING = re.compile(
    r"unsupported|not supported|n't supported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|extra inputs"
    r"|extra_forbidden|extraneous|not permitted|not allowed|not recognized|not accepted|additional propert"
    r"|cannot find field"
    r"|not enabled|not available|unavailable|deprecated|only the default|only 1(?:\.0)? is allowed|may only be set"
    r"|must be (?:set to )?1(?:\.0)?\b(?! or| and| to|\.\d)|cannot (?:both )?be|can't be used|compatible"
    r"|disallowed|forbidden"
    r"|invalid (?:parameter|argument|field)|not implemented|only user and assistant"
)
_RANGE = re.compile(
    r"between|at (?:most|least)|(?:less|greater|more|larger|smaller) than|<=|>=|≤|≥|range|too (?:large|high|small|low)"
)
_SUGGESTION = re.compile(r"use ['\"`]?[\w.]+['\"`]? instead|instead,? use ['\"`]?[\w.]+")
_UNKNOWN_CODES = ("unsupported", "unknown", "extra", "unrecognized", "notsupported", "notpermitted")
_BEFORE, _AFTER = 90, 110
"""How many characters around a name are about it."""
_SYSTEM = re.compile(
    r"(?:system|developer)[ _-]?(?:role|message|instruction|prompt)s?\b|role\W{0,4}(?:of )?\W?(?:system|developer)\b"
    r"|\[0\]\W{0,3}(?:\.|')?role|[`'\"](?:system|developer)[`'\"]|only user and assistant"
    r"|(?:unknown|unexpected|invalid) (?:message )?role"
)
_ALTERNATION = re.compile(r"roles? must alternate|must alternate between|alternating roles|roles must be alternating")
_OTHERS = frozenset({"context", "too_large", "filter", "account", "rate", "key", "page", "address"})


def refused_parameters(call: RefusedCall) -> frozenset[str]:
    """The names of parameters that the server doesn't take at all, or not with any value that was sent: ours, the two
    names of a limit, `stream_options`, and `system` for the role of the system prompt."""
    status = status_in(call)
    if status not in (None, 400, 404, 422, 500, 501) or meaning_of(call) in _OTHERS:
        return frozenset()
    body = call.body
    text = _SUGGESTION.sub("", body.text.lower())
    named = {name for name in _PATTERNS if _is_refused(name, text)}
    if any(word in code.replace("_", "") for code in body.codes for word in _UNKNOWN_CODES) and not _RANGE.search(text):
        named |= {
            name for param in body.params for name, pattern in _PATTERNS.items() if pattern.fullmatch(param.lower())
        }
    if {"temperature", "top_p"} <= named and "both" in text:
        named.discard("temperature")
    if "temperature" in named and "thinking is enabled" in text:
        named.discard("reasoning_effort")
    if _ALTERNATION.search(text) or (
        _SYSTEM.search(f"{text} {' '.join(body.params).lower()}") and _REFUSING.search(text)
    ):
        named.add("system")
    return frozenset(named)


def _is_refused(name: str, text: str) -> bool:
    for match in _PATTERNS[name].finditer(text):
        about = text[max(0, match.start() - _BEFORE) : match.end() + _AFTER]
        if _REFUSING.search(about) and not _RANGE.search(about):
            return True
    return False
