"""What a model is for, by its name and by what its server says."""

import pytest

from backend.chains.models.kinds import kind_by_name, kind_of
from backend.config.models_file import ModelKind, ModelSpec

_NAMES: dict[ModelKind, str] = {
    "chat": "gpt-4.1-mini chatgpt-4o-latest o3 qwen2.5-7b-instruct Qwen3-VL-8B qwen2-audio-7b-instruct llama3.2:latest "
    "gemma-3-4b-it mistral-small deepseek-r1:8b snowflake-arctic-instruct voxtral-mini-latest gemini-2.5-flash-image "
    "phi-4-multimodal-instruct moondream llava:7b smollm2 command-a granite3.3 video-llava-7b invoice-llm gpt-oss-20b "
    "embedded-coder falcon openchat microsoft/WizardLM-2-8x22B kimi-k2 aya-expanse-32b stablelm2",
    "embedding": "text-embedding-3-small text-embedding-ada-002 nomic-embed-text-v1.5 BAAI/bge-m3 bge-base-en "
    "Alibaba-NLP/gte-Qwen2-7B-instruct intfloat/multilingual-e5-large-instruct e5-mistral-7b-instruct jina-clip-v2 "
    "jina-colbert-v2 snowflake-arctic-embed:110m mxbai-embed-large all-minilm:l6-v2 all-mpnet-base-v2 voyage-3-large "
    "embeddinggemma embed-v4.0 mistral-embed amazon.titan-embed-text-v2:0 paraphrase-multilingual nomic-bert",
    "reranker": "BAAI/bge-reranker-v2-m3 rerank-v3.5 jina-reranker-v2-base-multilingual Qwen3-Reranker-4B "
    "mxbai-rerank-large-v2 cross-encoder/ms-marco-MiniLM-L-6-v2 gte-reranker-modernbert-base llama-nemotron-rerank-1b",
    "audio": "whisper-1 Systran/faster-distil-whisper-large-v3 whisper-base tts-1-hd gpt-4o-mini-tts gpt-4o-transcribe "
    "gpt-4o-audio-preview gpt-realtime parakeet-tdt-0.6b-v3 hexgrad/Kokoro-82M canary-1b playai-tts speecht5_tts",
    "image": "dall-e-3 gpt-image-1 black-forest-labs/FLUX.1-schnell flux stable-diffusion-xl-base-1.0 imagen-4.0-ultra "
    "grok-2-image-1212 sdxl-turbo qwen-image",
    "video": "sora-2 veo-3 wan2.1-t2v hunyuan-video",
    "moderation": "omni-moderation-latest llama-guard3:8b qwen3guard-gen-8b shieldgemma granite-guardian",
    "ocr": "mistral-ocr-latest deepseek-ocr olmocr-7b",
    "completion": "babbage-002 davinci-002 gpt-3.5-turbo-instruct Qwen/Qwen3-8B-Base",
    "other": "mmproj-model-f16.gguf nemotron-4-340b-reward",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in _NAMES.items() for name in names.split()])
def test_a_name_tells_what_a_model_is_for(kind: ModelKind, name: str) -> None:
    assert kind_of(name) == kind


def test_what_somebody_says_counts_more_than_the_name() -> None:
    assert kind_by_name("bge-chat") == "embedding"
    assert kind_of("bge-chat", None, ModelSpec(kind="chat")) == "chat"
    assert kind_of("plain", ModelSpec(context=5), ModelSpec(kind="reranker")) == "reranker"
