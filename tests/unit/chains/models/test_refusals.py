"""What a provider says when it refuses: for those who look, and without the key."""

from typing import Any

import pytest
from pydantic import SecretStr

from backend.chains.models import _refusals
from backend.chains.models._openai_chunks import StreamError
from backend.chains.models.provider import Endpoint, Kind
from backend.config.groups.logs import LogSettings
from backend.config.logging import _processors

KEY = "sk-0123456789-secret"


def test_the_log_is_given_its_words_and_the_caller_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            logged.append({"event": event, **fields})

    monkeypatch.setattr(_refusals, "log", Log())
    endpoint = Endpoint("work", Kind("openai", "a server"), "http://localhost:1/v1", SecretStr(KEY))
    said = f"Temperature must be 1 for {KEY}"
    refusal = _refusals.refusal_of(StreamError(400, said), "m", endpoint)
    assert "emperature must" not in refusal.message
    words = "Temperature must be 1 for ***"
    assert logged == [{"event": "provider_refused", "model": "work/m", "status": 400, "said": words}]


@pytest.mark.parametrize("allowed", [False, True])
def test_the_words_are_written_where_that_is_allowed(allowed: bool) -> None:
    settings = LogSettings(_env_file=None, log_format="json", log_provider_text=allowed)  # pyright: ignore[reportCallIssue]
    shared, _ = _processors(settings)
    event: Any = {"event": "provider_refused", "said": "No."}
    for processor in shared:
        event = processor(None, "info", event)
    assert ("said" in event) is allowed
