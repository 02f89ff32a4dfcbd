"""What models that run in this process share: onnxruntime's session, and batches of texts."""

import importlib
from pathlib import Path
from typing import Any

# Padded tokens of one batch. 1,024 is no faster and costs 58 MB more, which the allocator keeps.
BATCH_TOKENS = 512


def open_session(model: bytes | Path, threads: int, weights: Path | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on `threads` threads. `weights`: the folder of weights outside of the model, if
    it comes as bytes. Raises what onnxruntime raises.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")  # has no types
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    # An arena would keep the peak of the largest batch for ever; threads that spin take the CPU from the
    # server.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def batches(lengths: list[int]) -> list[list[int]]:
    """Rows grouped so that rows x longest <= BATCH_TOKENS, alike lengths together."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[row] <= BATCH_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def tokenizable(text: str, max_tokens: int) -> str:
    """As much of a text as a tokenizer that cuts at `max_tokens` has to see; it reads all before it cuts. Lone
    surrogates are no text at all for it.
    """
    return text[: 64 * max_tokens].encode("utf-8", "replace").decode("utf-8")
