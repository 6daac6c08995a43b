"""What a release leaves out of its answers: items that the user has acted on already.

A condition on item ids like any other, so that every engine leaves them out before it counts its candidates.
"""

from shards.feature_kinds import ITEM_ID_COLUMN
from shards.release import Release
from shards.search_context import Filter, FilterClause, SearchContext


def exclusion(release: Release, context: SearchContext) -> Filter:
    """Return the condition that the release adds to a search, none where there is nothing to leave out.

    It goes by the history that travels with the search: no further back than `history_limit` events.
    """
    if not release.exclude_actions:
        return ()
    history = context.user.history
    events = zip(history.item_ids, history.actions, strict=True)
    acted_on = dict.fromkeys(item_id for item_id, action in events if action in release.exclude_actions)
    if not acted_on:
        return ()
    return (FilterClause(attribute=ITEM_ID_COLUMN, any_of=tuple(acted_on), negate=True),)
