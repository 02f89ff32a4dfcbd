"""Voyage's API. It refuses Cohere's `top_n`, and calls its list `data`."""

from backend.chains.retrieval.rerankers._remote import RerankerProtocol

PLUGIN = RerankerProtocol(
    name="voyage",
    example="voyage:https://api.voyageai.com/v1",
    body=lambda query, texts: {"query": query, "documents": texts, "top_k": len(texts)},
    entries=lambda answer: answer["data"],
)
