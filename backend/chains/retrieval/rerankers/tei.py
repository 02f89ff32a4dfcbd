"""Hugging Face's text-embeddings-inference. By default it takes at most 32 texts in a request."""

from backend.chains.retrieval.rerankers._remote import RerankerProtocol

PLUGIN = RerankerProtocol(
    name="tei",
    example="tei:http://127.0.0.1:8080",
    body=lambda query, texts: {"query": query, "texts": texts, "truncate": True},
    entries=lambda answer: answer,
    score="score",
    batch=32,
)
