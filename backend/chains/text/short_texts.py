"""The text that a model was asked for, without what it wrote around it: a title, a question, a summary.

Models answer "Reply with the title only" with JSON, code fences, `Title:`, quotation marks, explanations, tokens of
their template, or a refusal.
"""

import json
import re
from typing import cast

_TOKEN = re.compile(
    r"<[|｜][^<>\n]{1,60}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>", re.I
)
_FIRST_TOKENS = re.compile(
    rf"(?:\s*(?:{_TOKEN.pattern})(?:\s*(?:assistant|model|bot|ai|final)\b(?=\s*[:\n<]))?)+\s*:?", re.I
)
_FENCE = re.compile(r"(?:\A|\n)[ \t]*(?:```|~~~)[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n[ \t]*(?:```|~~~)|\Z)", re.S)
_HTML = re.compile(r"</?(?:title|h[1-6]|b|strong|i|em|p|q|answer|output|response|question|query)>", re.I)
_BULLET = re.compile(r"(?:#{1,6}|[-*•+>]|\(?\d{1,2}[.)])[ \t]+")
_EMPHASIS = re.compile(r"\*\*|__")
_QUOTES = {
    '"': '"',
    "'": "'",
    "`": "`",
    "*": "*",
    "_": "_",
    "“": "”",
    "„": "“",
    "”": "”",
    "«": "»",
    "»": "«",
    "‘": "’",
    "‚": "‘",
    "「": "」",
    "『": "』",
    "《": "》",
    "[": "]",
}
_LABEL = re.compile(
    r"(?:(?:the|a|an|my|your|suggested|possible|proposed|short|new|chat|conversation|session|final|rewritten|standalone"
    r"|stand-alone|rephrased|reformulated|search|user['’]s|last|vorgeschlagener|kurzer|neuer|eigenständige|umformulierte"
    r"|le|el|il|o|der|die|das)[ \t]+){0,4}"
    r"(?:title|titel|titre|t[ií]tulo|titolo|tytuł|başlık|tajuk|judul|tiêu đề|název|cím|otsikko|rubrik|overskrift|titlu"
    r"|заголовок|название|тема|назва|τίτλος|عنوان|כותרת|标题|標題|タイトル|題名|제목|शीर्षक"
    r"|subject|topic|thema|betreff|sujet|asunto|oggetto|assunto|heading|name|answer|antwort|output|result|reply"
    r"|question|query|message|frage|suchanfrage|requête|pregunta|consulta|domanda|pergunta|вопрос|запрос|问题|問題|質問|질문"
    r"|summary|zusammenfassung|résumé|resumen|riassunto|sintesi|resumo|摘要|总结|要約)"
    r"(?:[ \t]+(?:of|for|von|für|de|del|der|des)\b[^:\n]{1,40})?[ \t]*(?:[:：]|[ \t][-–—][ \t])[ \t]*",
    re.I,
)
_OPENING = re.compile(
    r"(?:sure|certainly|of course|okay|ok|here(?:['’]s| is| are)|the (?:title|summary)|gern|natürlich|hier|voici"
    r"|bien sûr|claro|por supuesto|aquí|ecco|certo|aqui|вот|конечно|好的|以下)\b",
    re.I,
)
# "Sure, here is a title for the conversation: Trip to Oslo"
_OPENED_LABEL = re.compile(
    rf"(?:{_OPENING.pattern}|(?:the|my|der|die|le|el|il)\b)[^:：\n]{{0,60}}\b(?:title|titel|titre|t[ií]tulo|titolo|question"
    r"|query|frage|pregunta|domanda|summary)\b[^:：\n]{0,60}[:：][ \t]*",
    re.I,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am) (?:(?:very|so|really|truly) )?(?:sorry|afraid|unable|not able|not sure)|i (?:can(?:not|['’]?t)"
    r"|could(?:n['’]?t| not)|won['’]?t|will not|don['’]?t|do not|am unable|must decline|apologi[sz]e)\b"
    r"|(?:my )?apologies\b|sorry[,.!]|sorry (?:but|i)\b|unfortunately[, ]|as an? (?:ai|artificial|(?:large )?language)"
    r"|(?:please )?(?:provide|share|give) (?:me )?(?:more|the|a)\b|there is no (?:conversation|question|title)"
    r"|(?:es )?tut mir leid|entschuldigung|leider\b|ich kann (?:keine|nicht|das nicht|diese)|ich bin nicht in der lage"
    r"|(?:je suis )?désolée?\b|je ne (?:peux|suis)|malheureusement|lo siento|no puedo\b|lamento|desculpe|sinto muito"
    r"|não posso|mi dispiace|non posso|spiacente|извин|к сожалению|я не могу|很抱歉|抱歉|对不起|我(?:无法|不能)"
    r"|申し訳|すみません|죄송",
    re.I,
)
_NOTHING = frozenset({"none", "null", "n/a", "na", "untitled", "title", "undefined", "nil", "no title", "empty"})
_ROLES = frozenset({"assistant", "model", "final", "bot"})
_KEYS = ("title", "question", "query", "summary", "standalone_question", "name", "text", "answer")
_EDGES = "\"'`*_#“”„‘’«»《》「」『』 \t"
_MOST_JSON = 20_000


def written_line(text: str) -> str:
    """The one line that a model was asked for, as plain text; empty if it wrote none, or refused."""
    text = _without_tokens(text)
    if (fenced := _FENCE.search(text)) is not None and fenced[1].strip():
        text = fenced[1].strip()
    found = _from_json(text)
    if found is None:
        return ""
    line = _first_line(_HTML.sub("", found))
    return "" if line.casefold() in _NOTHING or _REFUSAL.match(line) else line


def written_text(text: str) -> str:
    """The text of several lines that a model was asked for; empty if it refused."""
    text = _without_tokens(text)
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1].strip()
    text = _HTML.sub("", text).strip()
    first, newline, rest = text.partition("\n")
    if newline and rest.strip() and _is_opening(first):
        text = rest.strip()
    elif label := _LABEL.match(_EMPHASIS.sub("", first)):
        text = (_EMPHASIS.sub("", first)[label.end() :] + newline + rest).strip()
    return "" if _REFUSAL.match(text) else text


def _without_tokens(text: str) -> str:
    """The text up to the first token of a chat template, without those at its beginning."""
    if (first := _FIRST_TOKENS.match(text)) is not None:
        text = text[first.end() :]
    return _TOKEN.split(text, maxsplit=1)[0].strip()


def _from_json(text: str) -> str | None:
    """The text in a JSON value: the first string in it. The text itself if there is no JSON, None if it is broken."""
    start = next((i for i in (text.find("{"), text.find("[")) if i == 0), text.find('{"'))
    if start < 0 or len(text) > _MOST_JSON:
        return text
    try:
        value = json.JSONDecoder(strict=False).raw_decode(text[start:])[0]
    except (ValueError, RecursionError):
        simple = re.match(r"\{\s*['\"]?\w+['\"]?\s*:\s*(['\"])(.*?)\1\s*\}", text[start:], re.S)
        return simple[2] if simple is not None else text if text[start] == "[" or start else None
    for _ in range(5):
        if isinstance(value, dict):
            named = {name.casefold(): member for name, member in cast("dict[str, object]", value).items()}
            members = [named[key] for key in sorted(named, key=_rank)]
        elif isinstance(value, list):
            members = cast("list[object]", value)
        else:
            break
        value = next((member for member in members if isinstance(member, str)), members[0] if members else None)
    return value if isinstance(value, str) else text if text[start] == "[" else None


def _rank(key: str) -> int:
    return _KEYS.index(key) if key in _KEYS else len(_KEYS)


def _first_line(text: str) -> str:
    """The first line that is neither empty nor an opening, such as "Here is a title:"; a quoted text as a whole."""
    text = text.strip()
    if (quoted := _quoted(text)) is not None:
        return _plain(quoted)
    lines = [line for line in map(str.strip, text.splitlines()) if line.strip(_EDGES + "-=~:")]
    lines = [line for line in lines if line.casefold() not in _ROLES] or lines
    for line in lines:
        if not _is_opening(line) or line is lines[-1]:
            return _plain(line)
    return ""


def _is_opening(line: str) -> bool:
    bare = _EMPHASIS.sub("", line).strip(" \t#*_")
    return bare.endswith((":", "：")) and (_OPENING.match(bare) or _LABEL.fullmatch(bare)) is not None


def _quoted(text: str) -> str | None:
    """What stands between quotation marks at the beginning of the text and their end, also over several lines."""
    closing = _QUOTES.get(text[:1])
    if closing is None or text[0] in "*_[`'":
        return None
    end = text.find(closing, 1)
    rest = text[end + 1 :]
    return text[1:end] if end > 1 and (not rest.strip(".!?") or rest.lstrip(" \t.").startswith("\n")) else None


def _plain(line: str) -> str:
    """The line without Markdown, labels and quotation marks around it."""
    line = " ".join(line.split())
    before = None
    while line and line != before:
        before = line
        line = _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
        line = _EMPHASIS.sub("", line).strip()
        label = _LABEL.match(line) or _OPENED_LABEL.match(line)
        if label is not None and line[label.end() :].strip(_EDGES):
            line = line[label.end() :]
        if len(line) > 1 and _QUOTES.get(line[0]) == line[-1] and line[0] != "[":
            line = line[1:-1].strip()
    line = line.strip("*_ \t")
    for quote in "\"'`":
        if line.count(quote) % 2 and (line[0] == quote or line[-1] == quote):
            line = line.strip(quote)
    return line.strip()
