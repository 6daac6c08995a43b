"""How a shadow's answer compares with the one that was sent. Pure."""

import math

from router.answer import Answer
from shards.release import Release
from shards.shadow import ShadowReport


def compare(sent: Answer, shadow: Answer, *, extra_s: float) -> ShadowReport:
    """Return the report of one search that both answered; `extra_s` is the shadow's time less the other's.

    The overlap is the share of the longer page that both have; two empty pages are equal. Ranks count from
    the top of the page. A score that is no number has no difference.
    """
    ranks = {item.item_id: rank for rank, item in enumerate(sent.items)}
    scores = {item.item_id: item.score for item in sent.items}
    common = [(rank, item) for rank, item in enumerate(shadow.items) if item.item_id in ranks]
    differences = [abs(item.score - scores[item.item_id]) for _, item in common]
    longer = max(len(sent.items), len(shadow.items))
    return ShadowReport(
        surface=shadow.release.surface,
        version=shadow.release.version,
        searches=1,
        overlap_sum=len(common) / longer if longer else 1.0,
        common_items=len(common),
        score_difference_sum=math.fsum(filter(math.isfinite, differences)),
        rank_difference_sum=float(sum(abs(rank - ranks[item.item_id]) for rank, item in common)),
        extra_seconds_sum=extra_s,
    )


def unanswered(shadow: Release) -> ShadowReport:
    """Return the report of one search that the shadow did not answer."""
    return ShadowReport(surface=shadow.surface, version=shadow.version, failures=1)
