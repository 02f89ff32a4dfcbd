"""What the models in this process share: the session of onnxruntime, and batches of texts."""

import importlib
from pathlib import Path
from typing import Any

# Tokens of one batch, with padding. 1,024 is not faster and costs 58 MB more, which the allocator keeps.
BATCH_TOKENS = 512


def open_session(model: bytes | Path, threads: int, weights: Path | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on `threads` threads.

    `weights` is the folder of weights outside of the model, if `model` is bytes. Raises what onnxruntime raises.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")  # has no types
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    # An arena would keep the memory of the largest batch forever; threads that spin take CPU from the server.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def batches(lengths: list[int]) -> list[list[int]]:
    """The rows in groups with rows x longest <= BATCH_TOKENS; rows of similar length are together."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and (len(groups[-1]) + 1) * lengths[row] <= BATCH_TOKENS:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def tokenizable(text: str, max_tokens: int) -> str:
    """The part of a text that a tokenizer needs for `max_tokens` tokens: it would read all of the text before it cuts.

    Lone surrogates are replaced, because the tokenizer can't read them.
    """
    return text[: 64 * max_tokens].encode("utf-8", "replace").decode("utf-8")
