"""Whether a release may go live by what its replicas find of what an exact search finds."""

from shards.cluster_state import ClusterState
from shards.live_quality import too_low
from shards.release import Release
from shards.releases import ReleaseChange, brings_live


def problem(state: ClusterState, change: ReleaseChange, release: Release) -> str:
    """Return which replica's recall keeps a release from going live; empty where none does.

    A canary, a shadow and a rollback are let through, and so is whatever takes nobody's place: a poor answer
    is better than none. So is one that has a reason to go live nevertheless.
    """
    least, searches = state.settings.min_recall, state.settings.recall_searches
    live = state.draft.releases.get(release.surface)
    if not least or live is None or live.version == release.version or not brings_live(change):
        return ""
    if release.quality is not None and release.quality.override_reason:
        return ""
    for model in release.models():
        for shard_id in state.planned.get(model, ()):
            view = state.shards.get(shard_id)
            replica = view.replicas.get(model) if view else None
            low = too_low(replica.quality, least, searches) if replica else None
            if low is not None:
                return (
                    f"recall of {model} on {shard_id} is {low.mean:.3f} ({low.low:.3f} to {low.high:.3f}, "
                    f"{low.searches} searches), below the least of {least:g} "
                    "(--override-reason deploys it nevertheless)"
                )
    return ""
