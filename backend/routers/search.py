"""POST /search, and the explanation of how the passages of an answer were found."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backend.chains.history.follow_up import related_queries
from backend.chains.models.prompt import Message
from backend.chains.passages import Passage
from backend.kit.text import is_clean
from backend.routers.edge.bounds import IdText
from backend.routers.edge.examples import EMBEDDING_MISMATCH, NO_COLLECTION, NO_MESSAGE
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.paths import MessageId
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ReadyServices, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import DEPRECATED, View
from backend.services.library.search.search import Scope

router = APIRouter(tags=["search"], route_class=OwnRoute)
TAG = {"name": "search", "description": "Passages of documents, and messages, that fit a query."}


def _id(value: str) -> str:
    if not is_clean(value):
        raise ValueError("must be an id")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Id = Annotated[IdText, AfterValidator(_id)]


class Turn(BaseModel):
    """A message of the earlier conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str = Field(max_length=100_000)


class SearchRequest(BaseModel):
    """What to search for, and where."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"query": "notice period", "top_k": 5}]})

    query: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=4000)
    top_k: int = Field(5, ge=1, le=100, description="Maximum number of passages.")
    collections: list[Id] | None = Field(
        None, max_length=100, description="Search only in these collections, by id or name. Unset: all of yours."
    )
    documents: list[Id] | None = Field(None, max_length=100, description="Search only in these. Unset: all of yours.")
    mode: Literal["hybrid", "dense", "lexical"] = Field(
        "hybrid", description="`dense` searches by meaning, `lexical` by words, `hybrid` by both."
    )
    budget_chars: int | None = Field(
        None,
        ge=50,
        le=200_000,
        description="Select single sentences, the best ones, up to this number of characters in total.",
    )
    history: list[Turn] = Field(
        default_factory=list[Turn],
        max_length=100,
        description="The earlier conversation, if the query is a follow-up question.",
    )
    explain: bool = Field(False, strict=True, description="true: also return how the passages were found.")


class FoundPassage(View):
    """A passage. Its text is exactly `[start:end]` of the document's canonical text, in Unicode code points."""

    text: str
    document_id: str
    name: str = Field(description="The document's name.")
    filename: str = Field(description="The same as `name`.", json_schema_extra=DEPRECATED)
    version: str
    chunk_id: str = Field(description="The chunk with the passage's best sentence.")
    page: int | None = Field(None, description="Page of that sentence.")
    heading: str | None = Field(None, description="The path of headings above it.")
    context: str | None = Field(
        None, description="Text that belongs to the passage but is not part of it: a table's header."
    )
    start: int
    end: int
    score: float = Field(description="0 to 1; the passages of one search are sorted by it.")
    relevance: float = Field(
        description="0 to 1.5, comparable between searches: semantic similarity plus half the weighted "
        "share of the query's keywords. An answer gets only passages that reach "
        "RELEVANCE_FLOOR."
    )
    relevant: bool = Field(description="Whether `relevance` reaches RELEVANCE_FLOOR.")


class ExplainedQuery(View):
    """A query as it was searched."""

    text: str
    weight: float
    terms: list[str] = Field(description="The terms that the lexical leg searched for.")


class ExplainedCandidate(View):
    """A chunk that was found, its scores in both legs, and what happened to it."""

    chunk_id: str
    document_id: str
    place: int
    score: float
    relevance: float
    dense: float = Field(description="Cosine similarity of the chunk.")
    sentence: float = Field(description="Cosine similarity of its most similar sentence.")
    lexical: float = Field(description="BM25 score.")
    coverage: float = Field(description="Weighted share of the query's keywords in the chunk.")
    reranker: float | None = Field(
        None, description="The reranker's score on its own scale, if the reranker read this chunk."
    )
    outcome: str = Field(
        description="passage, below_floor, in_passage (beside a better sentence) or outranked", examples=["passage"]
    )


class ExplainedReranker(View):
    """Result of the reranker. If it failed, the order of both legs was used."""

    name: str
    ok: bool
    ms: float
    error: str | None = None


class Retrieval(View):
    """How the passages were found: the queries, the results of both legs, the ranking, and which chunks were dropped
    and why.
    """

    mode: str
    queries: list[ExplainedQuery]
    budget_chars: int | None = None
    relevance_floor: float
    found: dict[str, int] = Field(
        description="Number of chunks that each leg found. Those counted as `inactive` were ignored."
    )
    candidates: list[ExplainedCandidate] = Field(description="The best 30 chunks.")
    candidates_in_all: int
    reranker: ExplainedReranker | None = Field(None, description="null if no reranker was called.")
    milliseconds: dict[str, float]


class SearchResult(View):
    """Passages, best first."""

    items: list[FoundPassage]
    passages: list[FoundPassage] = Field(description="The same as `items`.", json_schema_extra=DEPRECATED)
    explanation: Retrieval | None = None


class MessageRetrieval(View):
    """How the passages of an answer were found; null if nothing was searched."""

    message_id: str
    retrieval: Retrieval | None = None


@router.post(
    "/search",
    responses=responses(400, 401, 402, 403, NO_COLLECTION, EMBEDDING_MISMATCH, 422, 502, 503),
    summary="Search your documents",
)
async def search(body: SearchRequest, services: ReadyServices, owner: Owner) -> SearchResult:
    """Returns the passages that an answer would be based on, without calling a language model. It also returns
    passages below RELEVANCE_FLOOR; their `relevant` is false.
    """
    if body.documents is not None:
        await services.library.documents.check_exist(owner, body.documents)
    collections = None
    if body.collections is not None:
        collections = tuple(await services.library.collections.resolve(owner, body.collections))
    history = [Message(turn.role, turn.content) for turn in body.history]
    scope = Scope(
        collections,
        tuple(body.documents) if body.documents is not None else None,
    )
    queries = related_queries(history, body.query)
    outcome = await services.library.search.search(
        owner, queries, body.top_k, scope, mode=body.mode, max_chars=body.budget_chars
    )
    passages = sorted((*outcome.passages, *outcome.irrelevant), key=lambda p: -p.score)
    relevant = {(p.version, p.start) for p in outcome.passages}
    items = [_passage_view(p, (p.version, p.start) in relevant) for p in passages]
    return SearchResult(
        items=items,
        passages=items,
        explanation=_retrieval_view(outcome.explanation) if body.explain else None,
    )


class Match(View):
    """Where a word of the query is in the snippet: `[start:end]`, in Unicode code points."""

    start: int
    end: int


class FoundMessage(View):
    """A message that has all words of the query."""

    message_id: str
    session_id: str
    session_title: str
    role: str = Field(examples=["assistant"])
    snippet: str = Field(description="A piece of the text around the first match, at most 400 characters.")
    matches: list[Match]
    created_at: Time


class FoundMessageList(View):
    """A page of messages, the last stored one first."""

    items: list[FoundMessage]
    next_cursor: str | None = None


@router.get("/search/messages", responses=responses(400, 401, 422), summary="Search your messages")
async def search_messages(
    services: ServicesDep,
    owner: Owner,
    q: Annotated[
        str,
        AfterValidator(_not_blank),
        Query(min_length=1, max_length=200, description="Words that the message must have, or their beginnings."),
    ],
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number per page.")] = 20,
    cursor: Cursor = None,
) -> FoundMessageList:
    """Finds your messages and the answers to them by their words, in all sessions and branches, also archived ones.
    Reasoning and the texts of sources are not searched.
    """
    before = position_of(cursor)
    found = await services.conversations.message_search.search(owner, q, before[0] if before else None, limit)
    last = found.items[-1].hit if found.more else None
    items = [
        FoundMessage(
            message_id=item.hit.message_id,
            session_id=item.hit.session_id,
            session_title=item.hit.session_title,
            role=item.hit.role,
            snippet=item.snippet,
            matches=[Match(start=start, end=end) for start, end in item.matches],
            created_at=iso(item.hit.created_at),
        )
        for item in found.items
    ]
    return FoundMessageList(items=items, next_cursor=cursor_of(last.n, last.message_id) if last else None)


@router.get(
    "/messages/{message_id}/retrieval",
    responses=responses(401, NO_MESSAGE),
    summary="How an answer's passages were found",
)
async def get_retrieval(message_id: MessageId, services: ServicesDep, owner: Owner) -> MessageRetrieval:
    """Returns the same as `explain` of a search; it is stored with each answer."""
    stored = await services.conversations.sessions.retrieval(owner, message_id)
    return MessageRetrieval(message_id=message_id, retrieval=_retrieval_view(stored) if stored is not None else None)


def _passage_view(p: Passage, relevant: bool) -> FoundPassage:
    return FoundPassage(
        text=p.text,
        document_id=p.document_id,
        name=p.document_name,
        filename=p.document_name,
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


def _retrieval_view(explanation: dict[str, Any]) -> Retrieval:
    return Retrieval.model_validate(explanation)
