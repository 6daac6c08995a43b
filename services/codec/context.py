"""The search context: query, user with features and history, situation and moment."""

from collections.abc import Mapping

from protos.headrace.v1 import types_pb2 as pb
from services.codec.moments import read_timestamp, timestamp_to_proto
from services.codec.violations import Field, collecting
from shards.search_context import History, RawValue, SearchContext, UserState

MAX_QUERY_CHARS = 1000


def context_to_proto(context: SearchContext) -> pb.SearchContext:
    """Return the message of a search context."""
    return pb.SearchContext(
        query=context.query,
        user=user_to_proto(context.user),
        features=features_to_proto(context.features),
        now=timestamp_to_proto(context.now_ms),
    )


def context_from_proto(message: pb.SearchContext) -> SearchContext:
    """Return the search context; raises `InvalidInput` with every field at fault, below "context"."""
    with collecting("context") as field:
        return read_context(message, field)


def read_context(message: pb.SearchContext, field: Field) -> SearchContext:
    """Return the search context; refuses long queries, an absent moment and what its parts refuse."""
    read_query(message.query, field.child("query"))
    field.child("now").check(message.HasField("now"), "must be set")
    return SearchContext(
        query=message.query,
        user=read_user(message.user, field.child("user")),
        features=read_features(message.features, field.child("features")),
        now_ms=read_timestamp(message.now, field.child("now")),
    )


def read_query(query: str, field: Field) -> None:
    """Refuse a query of more than 1,000 characters."""
    field.check(
        len(query) <= MAX_QUERY_CHARS, f"must have at most {MAX_QUERY_CHARS} characters, not {len(query)}"
    )


def user_to_proto(user: UserState) -> pb.UserState:
    """Return the message of a user's state."""
    return pb.UserState(
        user_id=user.user_id,
        features=features_to_proto(user.features),
        history=pb.History(
            item_ids=user.history.item_ids,
            actions=user.history.actions,
            timestamps_ms=user.history.timestamps_ms,
        ),
    )


def read_user(message: pb.UserState, field: Field) -> UserState:
    """Return the user's state; refuses a history that is not aligned or not in order of time."""
    return UserState(
        user_id=message.user_id,
        features=read_features(message.features, field.child("features")),
        history=_read_history(message.history, field.child("history")),
    )


def _read_history(message: pb.History, field: Field) -> History:
    item_ids, actions = tuple(message.item_ids), tuple(message.actions)
    timestamps_ms = tuple(message.timestamps_ms)
    events = len(item_ids)
    aligned = field.child("actions").check(
        len(actions) == events, f"must be as long as item_ids, {events}, not {len(actions)}"
    )
    times = field.child("timestamps_ms")
    aligned &= times.check(
        len(timestamps_ms) == events, f"must be as long as item_ids, {events}, not {len(timestamps_ms)}"
    )
    times.check(sorted(timestamps_ms) == list(timestamps_ms), "must be oldest first")
    return History(item_ids, actions, timestamps_ms) if aligned else History()


def features_to_proto(features: Mapping[str, RawValue]) -> dict[str, pb.FeatureValue]:
    """Return the messages of raw features by name."""
    return {name: _feature_to_proto(value) for name, value in features.items()}


def _feature_to_proto(value: RawValue) -> pb.FeatureValue:
    if isinstance(value, str):
        return pb.FeatureValue(text=value)
    if isinstance(value, tuple):
        return pb.FeatureValue(texts=pb.TextList(values=value))
    return pb.FeatureValue(number=value)


def read_features(messages: Mapping[str, pb.FeatureValue], field: Field) -> dict[str, RawValue]:
    """Return raw features by name, without those that are unset; refuses numbers that are not finite."""
    features: dict[str, RawValue] = {}
    for name in sorted(messages):
        value = messages[name]
        match value.WhichOneof("kind"):
            case "text":
                features[name] = value.text
            case "texts":
                features[name] = tuple(value.texts.values)
            case "number":
                field.element(name).check_finite(value.number)
                features[name] = value.number
    return features
