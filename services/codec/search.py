"""Search requests: what a frontend asks of a router."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protos.headrace.v1 import search_service_pb2 as pb
from services.codec.context import features_to_proto, read_features, read_query
from services.codec.filter import filter_to_proto, read_filter
from services.codec.moments import read_timestamp, timestamp_to_proto
from services.codec.violations import Field, collecting
from shards.ablation import MOST_EXPLAINED
from shards.search_context import Filter, RawValue

DEFAULT_PAGE_SIZE = 10
MAX_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search; `now_ms` None stands for the release's own clock."""

    surface: str
    query: str = ""
    user_id: str = ""
    context: Mapping[str, RawValue] = field(default_factory=dict)
    page_size: int = DEFAULT_PAGE_SIZE
    filter: Filter = ()
    explain: bool = False
    now_ms: int | None = None
    request_id: str = ""
    contributions: int = 0
    """Items of the page whose features' contributions are wanted."""


def search_to_proto(request: SearchRequest) -> pb.SearchRequest:
    """Return the message of a search."""
    return pb.SearchRequest(
        surface=request.surface,
        query=request.query,
        user_id=request.user_id,
        context=features_to_proto(request.context),
        page_size=request.page_size,
        filter=filter_to_proto(request.filter),
        explain=request.explain,
        now=None if request.now_ms is None else timestamp_to_proto(request.now_ms),
        request_id=request.request_id,
        contributions=request.contributions,
    )


def search_from_proto(message: pb.SearchRequest, *, most_items: int = MAX_PAGE_SIZE) -> SearchRequest:
    """Return the search, of a page of so many items at most; `InvalidInput` has every field at fault."""
    with collecting() as at:
        return _read_search(message, most_items, at)


def _read_search(message: pb.SearchRequest, most_items: int, at: Field) -> SearchRequest:
    at.child("surface").check_set(message.surface)
    _read_asker(message, at)
    default = min(DEFAULT_PAGE_SIZE, most_items)
    page_size = message.page_size if message.HasField("page_size") else default
    at.child("page_size").check_between(page_size, 1, most_items)
    at.child("contributions").check_between(message.contributions, 0, MOST_EXPLAINED)
    at.child("contributions").check(message.explain or not message.contributions, "must be 0 without explain")
    return SearchRequest(
        surface=message.surface,
        query=message.query,
        user_id=message.user_id,
        context=read_features(message.context, at.child("context")),
        page_size=page_size,
        filter=read_filter(message.filter, at.child("filter")),
        explain=message.explain,
        now_ms=read_timestamp(message.now, at.child("now")) if message.HasField("now") else None,
        request_id=message.request_id,
        contributions=message.contributions,
    )


def _read_asker(message: pb.SearchRequest, at: Field) -> None:
    read_query(message.query, at.child("query"))
    if not message.query.strip() and not message.user_id:
        at.child("query").refuse("must not be empty when user_id is")
        at.child("user_id").refuse("must not be empty when query is")
