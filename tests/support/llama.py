"""A real llama.cpp server for tests, with a model of half a megabyte whose words are random.

`python -m tests.support.llama <model.gguf>` serves until it is killed. It prints its URL as the first line.
"""

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
_WIDTH, _LAYERS, _HEADS, _INNER = 32, 1, 2, 64
_CONTEXT = 4096
_WORDS = ["harbour", "pilot", "ship", "night", "ladder", "board", "wind", "sea", "the", "a", "of", "and", "is", "was"]
_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_model(path: Path) -> None:
    """Write a model of llama's architecture, with random weights of a fixed seed. Its answers are words and long."""
    import gguf

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"▁{word}" for word in _WORDS)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(_WORDS)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("random")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 3 + [-10.0] * 256 + [-1.0] * len(_WORDS))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(_TEMPLATE)
    for name, weights in _weights(len(tokens)):
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(vocabulary: int) -> Iterator[tuple[str, np.ndarray]]:
    dice = np.random.default_rng(7)
    heads = dice.normal(0, 1, (vocabulary, _WIDTH))
    # Bytes and special tokens are never the most likely, because the best word's logit is far above zero.
    heads[: vocabulary - len(_WORDS)] = 0.0
    yield "token_embd.weight", dice.normal(0, 1, (vocabulary, _WIDTH))
    yield "output.weight", heads * 3
    yield "output_norm.weight", np.ones(_WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", np.ones(_WIDTH)
        yield f"{block}.ffn_norm.weight", np.ones(_WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{block}.{name}.weight", dice.normal(0, 0.3, (_WIDTH, _WIDTH))
        for name in ("ffn_gate", "ffn_up"):
            yield f"{block}.{name}.weight", dice.normal(0, 0.3, (_INNER, _WIDTH))
        yield f"{block}.ffn_down.weight", dice.normal(0, 0.3, (_WIDTH, _INNER))


@dataclass
class Llama:
    """A running server. `root` is its URL without a path."""

    root: str
    process: "subprocess.Popen[str]"

    @property
    def base_url(self) -> str:
        """The base URL for an OpenAI client."""
        return f"{self.root}/v1"

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def llama(model: Path) -> Iterator[Llama]:
    """A server in a separate process, when it is ready."""
    command = [sys.executable, "-m", "tests.support.llama", str(model)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        root = process.stdout.readline().strip()
        assert root.startswith("http://"), f"llama.cpp did not start: {root!r}, exit code {process.poll()}"
        yield Llama(root, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Serve until killed."""
    # A binary package, whose names no type checker sees.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = _CONTEXT
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
