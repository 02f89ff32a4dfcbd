"""Terms: what of a text and of a question meets, in each kind of script; and which language a text is in."""

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.chains.text.languages import FUNCTION_WORDS
from backend.chains.text.terms import about_terms, body_terms, detect_language, query_terms

LANGUAGES = st.sampled_from([None, *FUNCTION_WORDS, "greek", "arabic", "hindi", "tamil"])


def terms(text: str, language: str | None = "english") -> list[str]:
    return body_terms([text], language).split(" ")


# --- the terms of a text


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("maxRetryCount", "english", ["maxretrycount", "max", "retri", "count"]),
        ("HTTPServer2", "english", ["httpserver2", "http", "server", "2"]),
        ("IL-6", "english", ["il", "6"]),
        ("max_retry_count", "english", ["max", "retri", "count"]),
        ("config.retry_seconds=30", "english", ["config", "retri", "second", "30"]),
        ("The notices, noticed!", "english", ["the", "notic", "notic"]),
        ("Verträge Vertrag", "german", ["vertrag", "vertrag"]),
        ("straße STRASSE", "german", ["strass", "strass"]),
        ("Café cafe CAFÉ", None, ["cafe", "cafe", "cafe"]),
        ("книги Книга", "russian", ["книг", "книг"]),
        ("किताबें किताब लड़कियों लड़का", "hindi", ["किताब", "किताब", "लड़क", "लड़क"]),
        ("كِتَاب كتاب", "arabic", ["كتاب", "كتاب"]),
        ("東京タワー", None, ["東京", "京タ", "タワ", "ワー"]),
        ("犬", None, ["犬"]),
        ("한국어", None, ["한국", "국어"]),
        ("LinuxのカーネルV2", None, ["linux", "のカ", "カー", "ーネ", "ネル", "v2"]),
        ("x" * 300, "english", ["x" * 64]),
    ],
)
def test_the_terms_of_a_text(text: str, language: str | None, expected: list[str]) -> None:
    assert terms(text, language) == expected


@pytest.mark.parametrize(("composed", "language"), [("cafés", "french"), ("Verträge", "german"), ("ёлки", "russian")])
def test_an_accent_that_is_a_character_of_its_own_makes_no_other_word(composed: str, language: str) -> None:
    decomposed = {"cafés": "cafe\u0301s", "Verträge": "Vertra\u0308ge", "ёлки": "е\u0308лки"}[composed]
    assert decomposed != composed
    assert terms(decomposed, language) == terms(composed, language)


def test_a_body_is_a_line_a_sentence_and_words_that_come_twice_are_there_twice() -> None:
    assert body_terms(["Rent rent.", "?!", "The rent"], "english") == "rent rent\n\nthe rent"


def test_what_stands_above_a_chunk_has_each_term_once() -> None:
    assert about_terms("english", "Rents", None, "rent.pdf", "") == "rent pdf"


@pytest.mark.slow
def test_no_character_brings_a_blank_into_a_term() -> None:
    """Some decompose into one: a term that holds it would be two to the index, and one to the ranking."""
    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000:
            for word in (chr(code), f"x{chr(code)}y"):
                found = body_terms([word], None)
                assert found == " ".join(found.split()), hex(code)


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5), LANGUAGES)
@example(["ﷺ a\nb\u2028c\u0085d"], "arabic")
def test_terms_have_no_blanks_and_sentences_no_more_lines_than_one(texts: list[str], language: str | None) -> None:
    body = body_terms(texts, language)
    assert body.count("\n") == max(0, len(texts) - 1)
    for line in body.split("\n"):
        assert line == " ".join(line.split())


@settings(deadline=None)
@given(st.text(alphabet="abcdeäéжк12 -", max_size=40), LANGUAGES)
def test_capitals_are_no_other_words(text: str, language: str | None) -> None:
    assert terms(text.upper(), language) == terms(text, language)


# --- the terms of a question


@pytest.mark.parametrize(
    ("question", "languages", "expected"),
    [
        ("What is the notice period?", ["english"], ["notic", "period"]),
        ("Was kostet der Vertrag?", ["german"], ["kost", "vertrag"]),
        ("The lease of the lease", ["english"], ["leas"]),
        ("running notices", ["english", "german"], ["run", "notic", "running"]),
        ("東京の人口は？", [None], ["東京", "京の", "の人", "人口", "口は"]),
        ("notices", [], ["notic"]),
        ("notices", [None], ["notices"]),
        ("?! ...", ["english"], []),
    ],
)
def test_the_terms_of_a_question(question: str, languages: list[str | None], expected: list[str]) -> None:
    assert query_terms(question, languages) == expected


def test_a_question_of_small_words_alone_keeps_them() -> None:
    assert query_terms("To be or not to be", ["english"]) == ["to", "be", "or", "not"]


@settings(deadline=None)
@given(st.text(alphabet="abcdeäéßжकि東京한 -_.19A", max_size=40), LANGUAGES)
def test_each_term_of_a_question_is_one_of_the_same_text_as_a_document(text: str, language: str | None) -> None:
    asked = query_terms(text, [language])
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(terms(text, language))


# --- languages

TEXTS = {
    "english": "The lease ends in May, and the tenant has to leave the keys with the owner.",
    "german": "Der Vertrag endet im Mai, und der Mieter muss die Schlüssel bei dem Eigentümer lassen.",
    "french": "Le bail prend fin en mai et le locataire doit rendre les clés au propriétaire de la maison.",
    "spanish": "El contrato termina en mayo y el inquilino tiene que dejar las llaves al dueño de la casa.",
    "italian": "Il contratto finisce a maggio e la chiave della casa deve essere resa a chi è il proprietario.",
    "portuguese": "O contrato termina em maio e o inquilino não pode ficar com as chaves da casa, que são do dono.",
    "dutch": "Het contract eindigt in mei en de huurder moet de sleutels van het huis bij de eigenaar laten.",
    "swedish": "Avtalet slutar i maj och hyresgästen ska lämna nycklarna till den som äger huset, inte till banken.",
    "danish": "Aftalen slutter i maj, og lejeren skal ikke give nøglerne til banken, men til den der ejer huset.",
    "finnish": "Sopimus päättyy toukokuussa, ja vuokralainen ei voi pitää avaimia, koska ne ovat omistajan.",
    "polish": "Umowa kończy się w maju i najemca nie może zatrzymać kluczy, które są od domu, bo to nie jest jego dom.",
    "czech": "Smlouva končí v květnu a nájemce si nemůže nechat klíče, které jsou od domu, ale to je jeho věc.",
    "hungarian": "A szerződés májusban lejár, és a bérlő nem tarthatja meg a kulcsot, hogy ki az, az még nem biztos.",
    "turkish": "Sözleşme mayıs ayında bitiyor ve kiracı bu anahtarı ev sahibi için bırakıyor, ama o daha gelmedi.",
    "indonesian": "Kontrak ini berakhir pada bulan Mei dan penyewa tidak dapat menyimpan kunci yang ada di rumah itu.",
    "russian": "Договор кончается в мае, и жилец должен оставить ключи у хозяина.",
    "greek": "Το συμβόλαιο λήγει τον Μάιο και τα κλειδιά μένουν στον ιδιοκτήτη.",
    "arabic": "ينتهي العقد في مايو ويجب ترك المفاتيح عند المالك.",
    "hindi": "अनुबंध मई में समाप्त होता है और चाबियाँ मालिक के पास रहती हैं।",
    "tamil": "ஒப்பந்தம் மே மாதத்தில் முடிகிறது.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_of_a_sentence(language: str) -> None:
    assert detect_language(TEXTS[language]) == language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("契約は五月に終わります。Linux", None),
        ("合同于五月终止。", None),
        ("계약은 5월에 끝납니다.", None),
        ("สัญญาสิ้นสุดในเดือนพฤษภาคม", None),
        ("החוזה מסתיים במאי.", None),
        ("def total(rows):\n    return sum(row.price for row in rows)\n", "english"),
        ("id;name;price\n1;Ada;40\n2;Max;50\n", "english"),
        ("Öl Käse Brötchen", None),
        ("", "english"),
        ("12 345 !?", "english"),
    ],
)
def test_where_words_tell_nothing_the_script_does_or_nothing(text: str, expected: str | None) -> None:
    assert detect_language(text) == expected


@pytest.mark.parametrize("language", [x for x in TEXTS if x != "english"])
def test_a_quotation_does_not_change_the_language(language: str) -> None:
    assert detect_language(TEXTS[language] * 3 + " The end of it.") == language
