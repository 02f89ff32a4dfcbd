"""Files that are text."""

from pathlib import Path

PARAGRAPH = (
    "Harbour pilots board arriving ships two miles out. They know every sandbank, and they answer for the "
    "passage until the moorings are fast. A pilot works alone, mostly at night."
)

CODE = f'''"""Boards ships."""

import os

LIMIT = 2


class Pilots(Base):
    """{PARAGRAPH}"""

    lamp = True

    @property
    def ladder(self) -> str:
        return """
not a definition:
"""


async def Boarding(
    ship: str,
) -> None:
    # def fake():
    def inner():
        return ship

    print(inner())


if __name__ == "__main__":
    Boarding("Anna")
'''

MARKDOWN = f"""---
title: "Harbour handbook"
---
# Pilots

{PARAGRAPH}

## Boarding *at night*

- a ladder
- a lamp

```
# not a heading
```

Moorings
--------

Ropes.
"""

HTML = f"""<!DOCTYPE html>
<html><head><title>Harbour &amp; handbook</title><style>p {{ color: red }}</style></head>
<body><nav><a href="/">Home</a></nav>
<h1>Pilots <a class="anchor">#</a></h1>
<p>{PARAGRAPH}</p><script>alert("no")</script>
<h2>Boarding</h2>
<ul><li>a ladder</li><li><p>a   lamp</p></li></ul>
<table><tr><th>Ship</th><th>Draught</th></tr><tr><td>Anna</td><td>7 m</td></tr></table>
<pre>two
  lines</pre>
<footer>Imprint</footer></body></html>
"""


def eml(path: Path, text: str | None = PARAGRAPH, html: str | None = "<p>Not this.</p>") -> Path:
    """A mail with its text in one or two ways, and an attachment."""
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["Subject"] = "Grüße vom Hafen"
    mail["From"] = "Änne Lotse <pilot@harbour.example>"
    mail["To"] = "office@harbour.example"
    mail["Date"] = "Wed, 25 Nov 2026 10:00:00 +0000"
    mail["Message-ID"] = "<1@harbour.example>"
    if text is not None:
        mail.set_content(text)
        if html is not None:
            mail.add_alternative(html, subtype="html")
    elif html is not None:
        mail.set_content(html, subtype="html")
    mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Pläne.pdf")
    path.write_bytes(mail.as_bytes())
    return path


def csv(path: Path, rows: int = 6) -> Path:
    """A table with semicolons, quotes and a newline inside of a cell."""
    import csv as library

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = library.writer(file, delimiter=";")
        writer.writerow(["Name", "Note", "Price"])
        writer.writerow(["Anna", "Harbour pilots board arriving ships; two miles out.\nAt night.", "1,50"])
        writer.writerows([f"Ship {number}", "none", f"{number},00"] for number in range(rows))
    return path


def json(path: Path) -> Path:
    """A list of records with nested ones."""
    import json as library

    pilots = [
        {"name": "Anna", "ships": 12, "says": "Harbour pilots board arriving ships"},
        {"name": "Berta", "ships": 1.50, "boat": {"name": "Möwe", "seats": [2, 4]}},
    ]
    path.write_text(library.dumps({"version": "1.10", "pilots": pilots, "of the day": []}, indent=1), encoding="utf-8")
    return path


def code(path: Path) -> Path:
    path.write_text(CODE, encoding="utf-8")
    return path


def markdown(path: Path) -> Path:
    path.write_text(MARKDOWN, encoding="utf-8")
    return path


def html(path: Path) -> Path:
    path.write_text(HTML, encoding="utf-8")
    return path


def text(path: Path, content: str = PARAGRAPH, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path
