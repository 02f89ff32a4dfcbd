"""Words of a chunk and of a query made comparable, for the lexical index."""

from backend.chains.words import words


def about_terms(title: str | None, name: str, heading: str | None, context: str | None, language: str | None) -> str:
    """Terms of what stands above a chunk: title, file name, headings, context; joined by blanks."""
    return body_terms("\n".join(part for part in (title, name, heading, context) if part), language)


def body_terms(text: str, language: str | None) -> str:
    """Terms of a chunk's own text, joined by blanks."""
    return " ".join(words(text))


def detect_language(text: str) -> str | None:
    """The language of a text (ISO 639-1), or None when it can't be told."""
    return None
