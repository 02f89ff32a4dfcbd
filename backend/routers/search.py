"""Search: what retrieval sees, and how an answer's passages were found."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backend.chains.conversation import related_queries
from backend.chains.models.base import Message
from backend.chains.passages import Passage
from backend.events import clean_text
from backend.routers.problems import responses
from backend.routers.state import Owner, ReadyServices, ServicesDep
from backend.routers.view import View
from backend.services.knowledge import Scope

router = APIRouter(tags=["search"])


def _id(value: str) -> str:
    if value != clean_text(value):
        raise ValueError("must be an id")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Id = Annotated[str, AfterValidator(_id)]


class Turn(BaseModel):
    """A message of the conversation before the query."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str = Field(max_length=100_000)


class SearchRequest(BaseModel):
    """What to look for, and where."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"query": "notice period", "top_k": 5}]})

    query: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=4000)
    top_k: int = Field(5, ge=1, le=100, description="Passages at most.")
    collections: list[Id] | None = Field(None, max_length=100, description="Only in these; none is all of yours.")
    documents: list[Id] | None = Field(None, max_length=100, description="Only in these; none is all of yours.")
    mode: Literal["hybrid", "dense", "lexical"] = Field("hybrid", description="Which legs look for candidates.")
    budget_chars: int | None = Field(
        None,
        ge=50,
        le=200_000,
        description="Pick single sentences, the best ones, until they have so many characters together.",
    )
    history: list[Turn] = Field(
        default_factory=list[Turn], max_length=100, description="The conversation before, for a follow-up question."
    )
    explain: bool = Field(False, description="Tell how the passages were found.")


class FoundPassage(View):
    """A passage, its text exactly as in the document: `[start:end]` of the canonical text, in code points."""

    text: str
    document_id: str
    filename: str
    version: str
    chunk_id: str = Field(description="The chunk with the passage's best sentence.")
    page: int | None = Field(None, description="Where that sentence is.")
    heading: str | None = Field(None, description="The path of headings above it.")
    context: str | None = Field(None, description="What belongs to the text without standing in it: a table's header.")
    start: int
    end: int
    score: float = Field(description="0 to 1; orders the passages of one search.")
    relevance: float = Field(
        description="0 to 1.5, comparable between searches: closeness in meaning and half the share of the query's "
        "telling words. An answer is given only passages that reach RELEVANCE_FLOOR."
    )
    relevant: bool = Field(description="Whether it reaches RELEVANCE_FLOOR.")


class ExplainedQuery(View):
    """A query as it was looked for."""

    text: str
    weight: float
    terms: list[str] = Field(description="What the lexical leg looked for.")


class ExplainedCandidate(View):
    """A chunk that a leg found, what each leg says of it, and what became of it."""

    chunk_id: str
    document_id: str
    place: int
    score: float
    relevance: float
    dense: float = Field(description="Cosine of the chunk.")
    sentence: float = Field(description="Cosine of its closest sentence.")
    lexical: float = Field(description="BM25.")
    coverage: float = Field(description="Share of the query's telling words.")
    reranker: float | None = Field(None, description="The reranker's score, on its own scale, if it was shown this.")
    outcome: str = Field(
        description="passage, below_floor, in_passage (beside a better sentence) or outranked", examples=["passage"]
    )


class ExplainedReranker(View):
    """Whether the reranker did its part; without it, the ranking is that of both legs."""

    name: str
    ok: bool
    ms: float
    error: str | None = None


class Retrieval(View):
    """How passages were found: the queries, what both legs found, the ranking, what was dropped and why."""

    mode: str
    queries: list[ExplainedQuery]
    budget_chars: int | None = None
    relevance_floor: float
    found: dict[str, int] = Field(description="Chunks found by each leg; `inactive` ones were dropped.")
    candidates: list[ExplainedCandidate] = Field(description="The best 30.")
    candidates_in_all: int
    reranker: ExplainedReranker | None = Field(None, description="null when none was asked.")
    milliseconds: dict[str, float]


class SearchResult(View):
    """Passages, best first."""

    passages: list[FoundPassage]
    explanation: Retrieval | None = None


class MessageRetrieval(View):
    """What retrieval did for an answer; null when it looked for nothing."""

    message_id: str
    retrieval: Retrieval | None = None


@router.post(
    "/search", responses=responses(400, 401, 402, 403, 404, 409, 422, 502, 503), summary="Search your documents"
)
async def search(body: SearchRequest, services: ReadyServices, owner: Owner) -> SearchResult:
    """What an answer would be given, without a model; passages under the floor of relevance are there, and say so."""
    if body.documents is not None:
        await services.documents.check_exist(owner, body.documents)
    if body.collections is not None:
        await services.collections.check_exist(owner, body.collections)
    history = [Message(turn.role, turn.content) for turn in body.history]
    scope = Scope(
        tuple(body.collections) if body.collections is not None else None,
        tuple(body.documents) if body.documents is not None else None,
    )
    found = await services.knowledge.search(
        owner, related_queries(history, body.query), body.top_k, scope, mode=body.mode, budget=body.budget_chars
    )
    passages = sorted((*found.passages, *found.irrelevant), key=lambda p: -p.score)
    relevant = {(p.version, p.start) for p in found.passages}
    return SearchResult(
        passages=[_passage(p, (p.version, p.start) in relevant) for p in passages],
        explanation=_retrieval(found.trace) if body.explain else None,
    )


@router.get(
    "/messages/{message_id}/retrieval", responses=responses(401, 404), summary="How an answer's passages were found"
)
async def retrieval(message_id: str, services: ServicesDep, owner: Owner) -> MessageRetrieval:
    """The same as `explain` of a search, kept with each answer."""
    stored = await services.sessions.retrieval(owner, message_id)
    return MessageRetrieval(message_id=message_id, retrieval=_retrieval(stored) if stored is not None else None)


def _passage(p: Passage, relevant: bool) -> FoundPassage:
    return FoundPassage(
        text=p.text,
        document_id=p.document_id,
        filename=p.title,
        version=p.version,
        chunk_id=p.chunk_id,
        page=p.page,
        heading=p.heading,
        context=p.context,
        start=p.start,
        end=p.end,
        score=round(p.score, 4),
        relevance=round(p.relevance, 4),
        relevant=relevant,
    )


def _retrieval(trace: dict[str, Any]) -> Retrieval:
    return Retrieval.model_validate(trace)
