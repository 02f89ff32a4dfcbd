"""A PDF to ingest: dense pages of invented English, always the same, with facts that questions can ask for."""

import random
from dataclasses import dataclass
from pathlib import Path

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

FONT, SIZE, LEADING, MARGIN = "Helvetica", 10, 12.5, 56  # points

SUBJECTS = (
    "committee survey harbour engine archive council reservoir laboratory railway orchard workshop market "
    "expedition library foundry glacier district museum observatory company garden bridge village theatre"
).split()
ADJECTIVES = (
    "northern early careful provincial modern narrow public seasonal independent quiet industrial remote "
    "ancient regular technical western temporary detailed common unusual private central"
).split()
VERBS = (
    "describes supports replaced examined followed considered recorded limited improved completed required "
    "explained measured protected shared collected reduced carried maintained reached"
).split()
OBJECTS = (
    "timber records machines proposals samples letters drawings deliveries repairs contracts methods "
    "instruments estimates routes tariffs lectures harvests stations studies funds"
).split()
TAILS = (
    "during the following winter",
    "before the agreement was signed",
    "without further expense",
    "after several months of work",
    "in the opinion of its members",
    "as earlier reports had suggested",
    "along the eastern road",
    "under the supervision of two engineers",
)


@dataclass(frozen=True)
class Fact:
    """A sentence in the PDF, the question that it answers, and the words that a quote of it must contain."""

    sentence: str
    question: str
    answer: str


FACTS = (
    Fact(
        "The Halvorsen turbine reaches its rated output at 4127 revolutions per minute.",
        "At how many revolutions per minute does the Halvorsen turbine reach its rated output?",
        "4127",
    ),
    Fact(
        "The lighthouse at Port Calder was painted green in 1893 by Matilda Onslow.",
        "Who painted the lighthouse at Port Calder green?",
        "Matilda Onslow",
    ),
    Fact(
        "Beekeepers of Tarrow pay a tax of eleven copper marks for each hive.",
        "What tax do the beekeepers of Tarrow pay for each hive?",
        "eleven copper marks",
    ),
)


def sentence(rng: random.Random) -> str:
    first, second = rng.choice(ADJECTIVES), rng.choice(ADJECTIVES)
    text = f"the {first} {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} of the {second} "
    text += f"{rng.choice(SUBJECTS)} {rng.choice(TAILS)}."
    return text[0].upper() + text[1:]


def page_text(rng: random.Random, fact: Fact | None) -> list[str]:
    """Paragraphs that fill a page. The middle paragraph contains the fact."""
    paragraphs = [[sentence(rng) for _ in range(rng.randint(4, 7))] for _ in range(8)]
    if fact is not None:
        paragraphs[4].insert(2, fact.sentence)
    return [" ".join(sentences) for sentences in paragraphs]


def write_pdf(path: Path, pages: int, seed: int = 7) -> int:
    """The number of words in the new PDF. The facts are spread evenly over the pages."""
    rng = random.Random(seed)
    width, height = A4
    planted = {(i + 1) * pages // (len(FACTS) + 1): fact for i, fact in enumerate(FACTS)}
    canvas = Canvas(str(path), pagesize=A4)
    words = 0
    for page in range(pages):
        y = height - MARGIN
        canvas.setFont(FONT, SIZE)
        for paragraph in page_text(rng, planted.get(page)):
            words += len(paragraph.split())
            for line in simpleSplit(paragraph, FONT, SIZE, width - 2 * MARGIN):
                canvas.drawString(MARGIN, y, line)
                y -= LEADING
            y -= LEADING / 2
        assert y > 0, "the text runs off the page"
        canvas.showPage()
    canvas.save()
    return words
