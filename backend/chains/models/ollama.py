"""Models of an Ollama, through langchain-ollama."""

import json
from typing import Any

from backend.chains.models._finishes import reason_in
from backend.chains.models._frames import UNENCODED, fields_in, reading_hook, text_in
from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models._usage import counts_in
from backend.chains.models.prompt import Parameters
from backend.chains.models.provider import Kind, Listing, Plugin
from backend.errors import ModelNotFound, ProviderTimeout, RunError

_DEFAULT = "http://127.0.0.1:11434"


class _Provider(LangChainProvider):
    def unset(self) -> None:
        return None

    async def listing(self) -> Listing:
        import httpx

        url = self.endpoint.shown
        try:
            models = await self.names()
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return Listing(False, f"no Ollama answers at {url}: start it, or set {self.endpoint.url_setting}")
        if not models:
            return Listing(False, "Ollama runs but has no model: ollama pull llama3.2")
        chat = [m for m in models if "embed" not in m]
        return Listing(True, f"Ollama answers at {url}", tuple(models), chat[0] if chat else None)

    async def names(self) -> list[str]:
        listing = await listed(self.endpoint.network, f"{self.endpoint.root}/api/tags", self.headers())
        return [str(row["name"]) for row in listing["models"] if "name" in row]

    def headers(self) -> dict[str, str]:
        """What the settings add; a key, where one is set: Ollama's own service wants one."""
        endpoint = self.endpoint
        key = {"Authorization": f"Bearer {endpoint.key_text}"} if endpoint.key is not None else {}
        return endpoint.request_headers(key)

    def refusal(self, error: Exception, model: str) -> RunError:
        meant = super().refusal(error, model)
        if isinstance(meant, ModelNotFound):
            return ModelNotFound(f"Ollama has no model {model!r}: ollama pull {model}")
        if isinstance(meant, ProviderTimeout):
            return ProviderTimeout(
                "Ollama did not answer in time. A large model may still be loading: try again.", retry_after=0.0
            )
        return meant

    def make(self, model: str) -> Any:
        import httpx
        from langchain_ollama import ChatOllama

        from backend.kit.network.httpx_client import HttpxTransport

        network = self.endpoint.network
        return ChatOllama(
            model=model,
            base_url=self.endpoint.base_url,
            client_kwargs={
                "timeout": httpx.Timeout(self.longest, connect=self.settings.connect_timeout),
                "trust_env": False,
                "headers": {**UNENCODED, **self.headers()},
            },
            async_client_kwargs={
                "transport": HttpxTransport(network),
                "event_hooks": {"response": [reading_hook(httpx, _mended, is_plain=True)]},
            },
            # Never used, but made: by itself it would read all certificates.
            sync_client_kwargs={"verify": network.tls()},
        )

    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        options = parameters.named(
            max_tokens="num_predict", temperature="temperature", top_p="top_p", seed="seed", stop="stop"
        )
        fields: dict[str, Any] = {"options": options}
        if parameters.response_schema is not None:
            fields["format"] = json.loads(parameters.response_schema)
        if (effort := parameters.reasoning_effort) is not None:
            # Only gpt-oss has levels; for the others it is on or off.
            level = "low" if effort == "minimal" else effort
            fields["reasoning"] = level if "gpt-oss" in model else True
        return fields

    async def release(self, opened: Any) -> None:
        # LangChain offers no way to close what it opened.
        await opened._async_client.close()


def _mended(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A line of the stream, or the whole answer, with what is needed of it."""
    del name
    if body.get("error"):
        return [{"error": body["error"]}]
    message = fields_in(body, "message")
    said: dict[str, Any] = {"role": "assistant", "content": text_in(message, "content")}
    if thinking := text_in(message, "thinking"):
        said["thinking"] = thinking
    if isinstance(message.get("tool_calls"), list):
        said["tool_calls"] = message["tool_calls"]
    line: dict[str, Any] = {"model": text_in(body, "model"), "message": said, "done": body.get("done") is True}
    if line["done"]:
        line["done_reason"] = reason_in(body.get("done_reason")) or "stop"
        counts = counts_in(body)
        line |= {name: counts.get(name, 0) for name in ("prompt_eval_count", "eval_count")}
    return [line]


PLUGIN = Plugin(
    name="ollama",
    kinds=(Kind(name="ollama", summary="models of an Ollama", base_url=_DEFAULT, key=False, default_rank=20),),
    create=_Provider,
    needs=("langchain_ollama",),
    install="pip install langchain-ollama",
)
