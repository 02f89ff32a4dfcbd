"""Benchmarks: what a token, a request and a document cost, beside floors measured in the same run."""
