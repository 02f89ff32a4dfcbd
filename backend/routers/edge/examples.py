"""Examples of errors in OpenAPI that several endpoints share. Those of a single endpoint are in its own module."""

from backend.routers.edge.problems import ProblemExample

NO_SESSION = ProblemExample(404, "not_found", "No such session.")
NO_MESSAGE = ProblemExample(404, "not_found", "No such message.")
NO_RUN = ProblemExample(404, "not_found", "No such run.")
NO_DOCUMENT = ProblemExample(404, "not_found", "No such document.")
NO_COLLECTION = ProblemExample(404, "not_found", "No such collection. GET /collections lists yours.")
SESSION_BUSY = ProblemExample(
    409,
    "session_busy",
    "The session is still answering. Wait for that run, cancel it (POST /runs/{id}/cancel), or send if_busy "
    '"queue" or "replace".',
)
EMBEDDING_MISMATCH = ProblemExample(
    409,
    "embedding_mismatch",
    "This collection was embedded by openai/text-embedding-3-small:1536, which this server can't use: there is no "
    "OPENAI_API_KEY. Make that model available again, or embed the collection anew (POST /collections/{id}/embed).",
)
MODEL_NOT_FOUND = ProblemExample(
    404, "model_not_found", "The provider doesn't know this model. GET /models lists models."
)
