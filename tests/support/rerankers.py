"""Rerankers for tests: a server on loopback that speaks every protocol, and a tiny cross-encoder as an ONNX model."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "rk-test-very-secret"
RAW = "RAW-RERANKER-TEXT"
"""Text in every error that the server sends. It must not reach clients or logs."""


class RerankerServer(ThreadingHTTPServer):
    """A server that scores texts with `score(query, text)`. `status` and `raw` replace the response; while `gate` is
    not set, the response waits.
    """

    def __init__(self, score: Callable[[str, str], float]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.score = score
        self.status = 200
        self.raw: bytes | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.headers.get("Authorization", "")))
        self.server.gate.wait(30)
        status, content = self.server.status, self.server.raw
        if content is None:
            content = json.dumps(self._scores(body) if status == 200 else {"message": RAW}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _scores(self, body: dict[str, Any]) -> Any:
        """The body of the response in the protocol of the path. The best text comes first in all protocols."""
        texts = body.get("texts") or body["documents"]
        scores = [(index, self.server.score(body["query"], text)) for index, text in enumerate(texts)]
        scores.sort(key=lambda entry: -entry[1])
        if self.path.startswith("/tei/"):
            return [{"index": index, "score": score} for index, score in scores]
        entries = [{"index": index, "relevance_score": score} for index, score in scores]
        if self.path.startswith("/voyage/"):
            return {"object": "list", "data": entries[: body["top_k"]], "usage": {"total_tokens": 1}}
        return {"id": "1", "results": entries[: body["top_n"]], "meta": {}}

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def reranker_server(score: Callable[[str, str], float]) -> Iterator[RerankerServer]:
    """A running server."""
    server = RerankerServer(score)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def cross_encoder(folder: Path, words: str, *, outputs: int = 1, types: bool = True, favourite: str = "") -> Path:
    """The folder with `model.onnx` and `tokenizer.json`. The model's score is the number of `words` that query and text
    share, plus 10 if the text has the word `favourite`. Without `types`, the model has no token types and counts the
    words of query and text together.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words.split()])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(_graph(vocabulary, outputs, types, favourite))
    return folder


def _graph(vocabulary: dict[str, int], outputs: int, types: bool, favourite: str) -> bytes:
    """The ONNX model: bags of the query's and the text's words, multiplied word by word, and weighted."""
    from onnx import TensorProto, helper

    node, tensor, info = helper.make_node, helper.make_tensor, helper.make_tensor_value_info
    size = len(vocabulary)
    shared = [0.0 if word.startswith("[") else 1.0 for word in vocabulary]
    own = [10.0 if word == favourite else 0.0 for word in vocabulary]
    spread = [1.0] + [0.0] * (outputs - 1) if outputs == 1 else [0.0] * (outputs - 1) + [1.0]
    # Without types, all tokens are both query and text.
    is_text = node("Identity", ["token_type_ids" if types else "mask"], ["is_text"])
    not_text = node("Sub", ["one", "is_text"], ["is_query"]) if types else node("Identity", ["mask"], ["is_query"])
    nodes = [
        node("Identity", ["attention_mask"], ["mask"]),
        is_text,
        not_text,
        node("OneHot", ["input_ids", "size", "off_on"], ["words"], axis=-1),
    ]
    for side in ("query", "text"):
        nodes += [
            node("Mul", [f"is_{side}", "mask"], [f"{side}_real"]),
            node("Cast", [f"{side}_real"], [f"{side}_float"], to=TensorProto.FLOAT),
            node("Unsqueeze", [f"{side}_float", "last"], [f"{side}_column"]),
            node("Mul", ["words", f"{side}_column"], [f"{side}_words"]),
            node("ReduceMax", [f"{side}_words", "middle"], [f"{side}_bag"], keepdims=0),
        ]
    nodes += [
        node("Mul", ["query_bag", "text_bag"], ["both"]),
        node("MatMul", ["both", "shared"], ["from_shared"]),
        node("MatMul", ["text_bag", "own"], ["from_own"]),
        node("Add", ["from_shared", "from_own"], ["score"]),
        node("MatMul", ["score", "spread"], ["logits"]),
    ]
    constants = [
        tensor("one", TensorProto.INT64, [1], [1]),
        tensor("last", TensorProto.INT64, [1], [2]),
        tensor("middle", TensorProto.INT64, [1], [1]),
        tensor("size", TensorProto.INT64, [], [size]),
        tensor("off_on", TensorProto.FLOAT, [2], [0.0, 1.0]),
        tensor("shared", TensorProto.FLOAT, [size, 1], shared),
        tensor("own", TensorProto.FLOAT, [size, 1], own),
        tensor("spread", TensorProto.FLOAT, [1, outputs], spread),
    ]
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    graph = helper.make_graph(
        nodes,
        "cross-encoder",
        [info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [info("logits", TensorProto.FLOAT, ["batch", outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()
