"""Benchmarks: the costs of a token, a request and a document, compared with floors measured in the same run."""
