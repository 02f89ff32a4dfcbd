"""Makes real files for tests: each function writes one to `path` and returns the path."""

from tests.samples.archives import (
    docx,
    docx_bomb,
    docx_of_many_parts,
    epub,
    lying_docx,
    plain_zip,
    pptx,
    sparse_xlsx,
    xlsx,
)
from tests.samples.pages import blank_pdf, claiming_pdf, encrypted_pdf, pdf, picture, png, scanned_pdf, tesseract
from tests.samples.texts import CODE, HTML, MARKDOWN, PARAGRAPH, code, csv, eml, html, json, markdown, text

__all__ = [
    "CODE",
    "HTML",
    "MARKDOWN",
    "PARAGRAPH",
    "blank_pdf",
    "claiming_pdf",
    "code",
    "csv",
    "docx",
    "docx_bomb",
    "docx_of_many_parts",
    "eml",
    "encrypted_pdf",
    "epub",
    "html",
    "json",
    "lying_docx",
    "markdown",
    "pdf",
    "picture",
    "plain_zip",
    "png",
    "pptx",
    "scanned_pdf",
    "sparse_xlsx",
    "tesseract",
    "text",
    "xlsx",
]
