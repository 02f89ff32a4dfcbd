"""A server of StreamForge, over HTTP: its documents, its search and its answers."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import httpx
from httpx_sse import connect_sse

from bench.ingest import wait_until_ready

from .metrics import DEPTH, Passage
from .questions import EvalError, Question
from .spans import Text

PATIENCE = 3600  # seconds: until all documents of a set can be searched, or an answer has ended
_UPLOADS = 4  # at once
Body = Mapping[str, Any]


@dataclass
class Answer:
    """What became of a question. `failed`: why there is no answer."""

    citations: list[Passage] = field(default_factory=list)
    text: str = ""
    failed: str | None = None


class Client:
    """One server, as one of its users. Closed by `with`."""

    def __init__(self, base: str, key: str | None = None) -> None:
        self.base = base.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.base, timeout=PATIENCE, headers=headers, trust_env=False)
        self._texts: dict[str, Text] = {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # --- documents

    def upload(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Upload files by name and wait until they can be searched: their ids, by name. Raises EvalError."""
        deadline = time.monotonic() + PATIENCE
        with ThreadPoolExecutor(_UPLOADS) as uploads:
            ids = dict(zip(files, uploads.map(self._upload, files.items()), strict=True))
        for each in ids.values():
            wait_until_ready(self._http, each, deadline)
        self.__dict__.pop("_names", None)
        return ids

    def _upload(self, file: tuple[str, bytes]) -> str:
        return self._json("POST", "/documents/upload", files={"file": file})["documents"][0]["id"]

    def document(self, name: str) -> str:
        """The id of the document with this id or file name. Raises EvalError when there is none, or several."""
        ids = self._names.get(name) or self._names.get(PurePath(name).name) or set()
        if len(ids) > 1:
            raise EvalError(f"{len(ids)} documents are called {name}: write the id of the one that you mean.")
        if not ids:
            raise EvalError(f"there is no document {name!r} at {self.base}: upload it, or write its name as uploaded.")
        return next(iter(ids))

    @cached_property
    def _names(self) -> dict[str, set[str]]:
        """Ids by file name, and by themselves."""
        names: dict[str, set[str]] = {}
        cursor: str | None = None
        while True:
            params = {"limit": 200, **({"cursor": cursor} if cursor else {})}
            page = self._json("GET", "/documents", params=params)
            for each in page["items"]:
                names.setdefault(each["name"], set()).add(each["id"])
                names[each["id"]] = {each["id"]}
            cursor = page.get("next_cursor")
            if cursor is None:
                return names

    def text(self, document: str) -> Text:
        """The canonical text of the document with this id."""
        if document not in self._texts:
            self._texts[document] = Text(self._json("GET", f"/documents/{document}/text")["text"])
        return self._texts[document]

    # --- search

    @cached_property
    def _search_fields(self) -> dict[str, Any]:
        schemas = self._json("GET", "/openapi.json")["components"]["schemas"]
        return schemas["SearchRequest"]["properties"]

    @property
    def takes_history(self) -> bool:
        """Whether a search understands what a follow-up question follows."""
        return "history" in self._search_fields

    @property
    def modes(self) -> list[str]:
        """The values of a search's `mode` beside its default; none where it has no such field."""
        mode = self._search_fields.get("mode", {})
        options = [mode, *mode.get("anyOf", ())]
        values = next((option["enum"] for option in options if "enum" in option), [])
        return [value for value in values if value != mode.get("default")]

    def search(self, question: Question, body: Body, depth: int = DEPTH) -> tuple[list[Passage], float]:
        """The passages of a search and how many seconds it took. Raises EvalError, also when a passage is not what
        stands at its place in the document."""
        sent: dict[str, Any] = {"query": question.text, "top_k": depth, **body}
        if question.history and self.takes_history:
            sent["history"] = list(question.history)
        began = time.perf_counter()
        found = self._json("POST", "/search", json=sent)["items"]
        seconds = time.perf_counter() - began
        for each in found:
            known = self._texts.get(each["document_id"])
            if known is not None and known.text[each["start"] : each["end"]] != each["text"]:
                raise EvalError(f"{question.text!r}: a passage is not what stands at its place in {each['name']}")
        return [_passage(each) for each in found], seconds

    # --- answers

    def ask(self, question: str, model: str) -> Answer:
        """The answer of a model, in a session of its own."""
        answer = Answer()
        body = {"message": question, "model": model}
        with self._told(), connect_sse(self._http, "POST", "/chat", json=body) as source:
            if source.response.status_code != 200:
                source.response.read()
                raise EvalError(f"POST /chat was answered {_said(source.response)}")
            for sse in source.iter_sse():
                _add(answer, sse.json())
        return answer

    # ---

    def _json(self, method: str, path: str, **kwargs: Any) -> Any:
        with self._told():
            response = self._http.request(method, path, **kwargs)
        if not response.is_success:
            raise EvalError(f"{method} {path} was answered {_said(response)}")
        return response.json()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise EvalError(
                f"Nobody answers at {self.base}: start it (make run), or name another one by --base."
            ) from None
        except httpx.TransportError as error:
            raise EvalError(f"The connection to {self.base} broke: {error!r}") from None


def _said(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['detail']}"
    except (ValueError, KeyError):
        return f"{response.status_code}: {response.text[:300]}"


def _passage(each: Mapping[str, Any]) -> Passage:
    return Passage(each["document_id"], each["start"], each["end"], each.get("page"))


def _add(answer: Answer, event: Mapping[str, Any]) -> None:
    match event["type"]:
        case "text.delta":
            answer.text += event["text"]
        case "citation":
            answer.citations.append(_passage(event["document"]))
        case "run.failed":
            answer.failed = event["error"]["message"]
        case "run.cancelled":
            answer.failed = "somebody cancelled it"
        case _:
            pass


def searches(modes: Sequence[str]) -> dict[str, Body]:
    """The search bodies that are measured of a server, by name: its default first."""
    return {"default": {}, **{mode: {"mode": mode} for mode in modes}}
