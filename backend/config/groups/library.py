"""How documents are read, found and quoted."""

from pydantic import Field, field_validator

from backend.config.fields import Key, Names, SettingsGroup, parse_hosts


class LibrarySettings(SettingsGroup):
    """How documents become searchable."""

    enable_rag: bool = Field(True, description="0 answers without the documents.")
    embedding_model: str = Field(
        "minilm/all-MiniLM-L6-v2",
        description="`provider/model`: minilm (built in), openai (e.g. openai/text-embedding-3-small), ollama.",
    )
    chunk_size: int = Field(500, ge=100, le=8000, description="Characters of a chunk, the unit that is embedded.")
    passage_size: int = Field(
        1000, ge=100, le=20_000, description="Maximum characters of a passage: good sentences of a chunk, joined."
    )
    top_k: int = Field(6, ge=1, le=50, description="Number of passages that the model is given.")
    relevance_floor: float = Field(
        0.5,
        ge=0,
        le=1.5,
        description="Minimum relevance (0 to 1.5) that a passage needs. Relevance = semantic similarity + 0.5 x "
        "weighted share of the question's keywords in the passage.",
    )
    reranker: str | None = Field(
        None,
        description="A model that reads the question together with each of the best candidates and orders them: the "
        "URL of an API like Cohere's (e.g. http://localhost:8080/v1), `voyage:` or `tei:` and a URL, or "
        "`onnx:` and a folder. Unset: no reranker.",
    )
    reranker_model: str | None = Field(
        None, description="The model that the reranker's API should use, if it has several."
    )
    reranker_api_key: Key = Field(None, description="Key of the reranker's API.")
    reranker_timeout: float = Field(
        2.0, gt=0, le=60, description="Seconds that a search waits for the reranker; then it goes on without it."
    )
    rerank_candidates: int = Field(30, ge=2, le=100, description="Number of candidates that the reranker reads.")
    allowed_link_hosts: Names = Field(
        (),
        description="`host` or `host:port`, comma-separated. Answers from documents may link to these hosts and show "
        "images from them, even if no passage contains the URL.",
    )
    max_upload_mb: int = Field(50, ge=1, le=4096, description="Largest file, in MB.")
    max_upload_files: int = Field(20, ge=1, le=1000, description="Maximum number of files in one upload.")
    parse_timeout: float = Field(120.0, gt=0, description="Seconds that reading one file may take.")
    url_fetch: bool = Field(True, description="0 refuses POST /documents/url.")
    url_allowed_hosts: Names = Field(
        (),
        description="`host` or `host:port`, comma-separated. URLs of these hosts are fetched even if the address is "
        "private or the port is not 80 or 443.",
    )
    url_proxy: bool = Field(
        False,
        description="1 fetches URLs through HTTP_PROXY and HTTPS_PROXY, too. The proxy then decides which addresses "
        "can be reached: it must refuse private ones. URLs of URL_ALLOWED_HOSTS always go through the proxy.",
    )
    url_timeout: float = Field(60.0, gt=0, le=3600, description="Seconds that fetching one URL may take.")

    @field_validator("embedding_model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if not all(value.partition("/")):
            raise ValueError("must be provider/model, e.g. minilm/all-MiniLM-L6-v2")
        return value

    @field_validator("url_allowed_hosts", "allowed_link_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_hosts(value)
        return value
