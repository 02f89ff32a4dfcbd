"""Messages that are no questions about documents: greetings, thanks, and questions about the server itself.

A language model answers them by itself. The model that only quotes documents needs to be told.
"""

import re
from typing import Literal

SmallTalk = Literal["greeting", "thanks", "abilities", "documents", "summary"]

_LONGEST = 80
_NOT_WORDS = re.compile(r"[^\w\s]+", re.UNICODE)

_PHRASES_OF: dict[SmallTalk, str] = {
    "greeting": """hi, hi there, hello, hello there, hey, hey there, good morning, good afternoon, good evening, hallo,
        guten tag, guten morgen, guten abend, moin, servus, bonjour, salut, bonsoir, hola, buenos días, buenas tardes,
        ciao, buongiorno, buonasera, olá, bom dia, boa tarde, goedemorgen, hej, cześć, ahoj, merhaba, привет,
        здравствуйте, 你好, 您好, こんにちは, 안녕하세요, مرحبا""",
    "thanks": """thanks, thank you, thank you very much, thanks a lot, many thanks, thx, great thanks, ok thanks, danke,
        danke schön, vielen dank, merci, merci beaucoup, gracias, muchas gracias, grazie, grazie mille, obrigado,
        obrigada, dank je, dank u, bedankt, tack, dziękuję, děkuji, teşekkürler, спасибо, 谢谢, ありがとう,
        ありがとうございます, 감사합니다, شكرا""",
    "abilities": """what can you do, what can i do here, what do you do, who are you, what are you, how do you work,
        how does this work, what is this, help, help me, what can i ask, what can i ask you,
        what can you help me with, how can you help me, was kannst du, was kannst du tun, wer bist du,
        wie funktioniert das, hilfe, was kann ich fragen, que peux tu faire, que pouvez vous faire, qui es tu, aide,
        qué puedes hacer, quién eres, ayuda, cosa puoi fare, chi sei, aiuto, o que você pode fazer, quem é você, ajuda,
        wat kun je doen, wie ben je, что ты умеешь, кто ты, 你能做什么, 你是谁""",
    "documents": """welche dokumente hast du, welche dokumente habe ich, welche dokumente gibt es,
        quels documents as tu, quels documents avez vous, qué documentos tienes, quali documenti hai, 你有什么文件""",
    "summary": """tl dr, tldr, zusammenfassung, fasse das zusammen, fass das zusammen, fasse das dokument zusammen,
        worum geht es, worum geht es hier, résume ce document, résumez ce document, résumé, resumen,
        resume este documento, riassumi questo documento, 总结一下""",
}
_PHRASES: dict[str, SmallTalk] = {
    " ".join(phrase.split()): kind for kind, phrases in _PHRASES_OF.items() for phrase in phrases.split(",")
}
_NOUNS = frozenset("document documents file files pdf pdfs text texts upload uploads".split())
_FILLERS = frozenset(
    """a all am an and are brief can could do does everything for give have i in is it just me my of please quick s
    short that the them there these they this those to us what which write you your""".split()
)
_LISTING = frozenset("have see know list show uploaded upload search there".split())
_SUMMING = frozenset("summarize summarise summary summaries overview about sum up".split())


def small_talk_of(message: str) -> SmallTalk | None:
    """What kind of small talk the whole message is; None if it is something else, for example a question about a
    document."""
    if len(message) > _LONGEST:
        return None
    plain = " ".join(_NOT_WORDS.sub(" ", message.casefold()).split())
    return _PHRASES.get(plain) or _request_of(set(plain.split()))


def _request_of(words: set[str]) -> SmallTalk | None:
    """Whether these words, all of them, ask for a list or a summary of documents, in English."""
    about = words - _FILLERS - _NOUNS
    if words & _SUMMING and about <= _SUMMING:
        # "What is it about?" and "summary" need no noun.
        return "summary"
    if words & _NOUNS and words & _LISTING and about <= _LISTING:
        return "documents"
    return None
