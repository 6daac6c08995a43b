"""A router without a cluster: a real SearchService on loopback that answers every search alike."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from protos.headrace.v1 import search_service_pb2 as pb
from protos.headrace.v1 import types_pb2
from services.followed_rules import RulesSource
from tests.deploy.background import in_background
from tests.deploy.scripted_service import scripted_service

SERVICE = "headrace.v1.SearchService"

_IDS = ("item-1", "item-2", "item-3")
_CHANNEL = types_pb2.Candidates(
    item_ids=_IDS,
    columns=[
        types_pb2.FloatColumn(name="lexical.rank", values=[1, 2, 3]),
        types_pb2.FloatColumn(name="lexical.score", values=[9.5, 4.25, float("nan")]),
    ],
)
_RANKED = types_pb2.Candidates(
    item_ids=("item-2", "item-1"),
    columns=[
        types_pb2.FloatColumn(name="rank.score", values=[0.75, 0.5]),
        types_pb2.FloatColumn(name="rank.purchase", values=[0.625, 0.125]),
    ],
)


def answer() -> pb.SearchResponse:
    """Return two items of three, the second one first, ranked and explained."""
    response = pb.SearchResponse(
        gate=pb.GateDecision(
            open=False, reason="gain_unlikely", probability=0.25, threshold=0.4, version="gate@3"
        ),
        release=pb.ReleaseRef(surface="shop", version="r7"),
        coverage=types_pb2.Coverage(complete=True),
        explanation=pb.Explanation(
            channels=[pb.ChannelExplanation(channel="lexical", candidates=_CHANNEL)],
            merged=_CHANNEL,
            ranked=_RANKED,
        ),
        generation=12,
    )
    for item_id, title, score in (("item-2", "BLUE <MUG>", 0.75), ("item-1", "RED MUG", 0.5)):
        response.items.add(
            item_id=item_id,
            score=score,
            attributes={"title": title, "colour": title.split()[0].lower()},
            channels=["lexical"],
            scores={"lexical.rank": 2, "lexical.score": 4.25, "rank.score": score, "rank.purchase": 0.625},
            contributions=[
                pb.FeatureContribution(feature="takes_query_share", value=0.375),
                pb.FeatureContribution(feature="price_gbp", value=-0.125),
            ],
        )
    timing = response.timings.add(
        stage=types_pb2.STAGE_RETRIEVAL, channel="lexical", model="lexical@1", shard_id="shard-0"
    )
    timing.total.FromMilliseconds(8)
    timing.compute.FromMilliseconds(2)
    timing.candidates = 3
    return response


class ScriptedRouter:
    """Answers with `answer`, or raises it where it is an error; `asked` holds the requests."""

    def __init__(self) -> None:
        self.address = ""
        self.answer: pb.SearchResponse | Exception = answer()
        self.asked: list[pb.SearchRequest] = []

    async def search(self, request: pb.SearchRequest, _: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        """Answer one search."""
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def _serving(access: RulesSource | None) -> AsyncIterator[ScriptedRouter]:
    router = ScriptedRouter()
    handler = grpc.unary_unary_rpc_method_handler(
        router.search,
        request_deserializer=pb.SearchRequest.FromString,
        response_serializer=pb.SearchResponse.SerializeToString,
    )
    async with scripted_service(SERVICE, {"Search": handler}, access) as router.address:
        yield router


def scripted_router(access: RulesSource | None = None) -> AbstractContextManager[ScriptedRouter]:
    """Serve a scripted router in the background."""
    return in_background(_serving(access))
