"""StreamForge: a self-hosted streaming answer engine."""

__version__ = "0.3.0"
