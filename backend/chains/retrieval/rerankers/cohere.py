"""Cohere's API (v2), which most others speak as well: Jina, vLLM, llama.cpp's server, LocalAI, Infinity."""

from backend.chains.retrieval.rerankers._remote import RerankerProtocol

PLUGIN = RerankerProtocol(
    name="cohere",
    example="cohere:https://api.cohere.com/v2",
    # Some servers require `top_n`; others return only some of the texts without it.
    body=lambda query, texts: {"query": query, "documents": texts, "top_n": len(texts)},
    entries=lambda answer: answer["results"],
)
