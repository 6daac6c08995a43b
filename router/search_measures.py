"""What a router counts of its searches, taken from each answer once it is whole."""

from router.answer import Answer
from router.seen_search import SeenSearch
from shards.measures import SHARE_BOUNDS, Counts, Distributions


class SearchMeasures:
    """Figures of all searches so far; written on the router's event loop.

    Labels have few values: surfaces and channels of releases, stable words, and models where `per_model`.
    """

    def __init__(self, *, per_model: bool = False) -> None:
        stage = ("surface", "stage", "channel", *(("model",) if per_model else ()))
        self._per_model = per_model
        self.searches = Counts("surface", "status")
        self.search_s = Distributions("surface")
        self.stage_s = Distributions(*stage)
        self.queue_s = Distributions(*stage)
        self.compute_s = Distributions(*stage)
        self.gates = Counts("surface", "decision", "reason", "version")
        self.gate_probability = Distributions("surface", bounds=SHARE_BOUNDS)
        self.gaps = Counts("surface", "stage", "channel", "reason")

    def ended(self, seen: SeenSearch) -> None:
        """Count a search, answered or not."""
        surface = seen.surface
        self.searches.add(surface, seen.status)
        if seen.answer is not None:
            self.search_s.observe(seen.took_s, surface)
            self._answered(seen.answer, surface)

    def refused(self) -> None:
        """Count a search that was refused before it was read."""
        self.searches.add("unknown", "resource_exhausted")

    def _answered(self, answer: Answer, surface: str) -> None:
        gate = answer.gate
        self.gates.add(surface, "open" if gate.open else "closed", gate.reason, gate.version)
        if gate.probability is not None:
            self.gate_probability.observe(gate.probability, surface)
        for timing in answer.timings:
            stage: tuple[str, ...] = (surface, timing.stage.value, timing.channel)
            if self._per_model:
                stage = (*stage, str(timing.model))
            self.stage_s.observe(timing.total_s, *stage)
            self.queue_s.observe(timing.queue_s, *stage)
            self.compute_s.observe(timing.compute_s, *stage)
        for gap in answer.gaps:
            stage_name = gap.stage.value if gap.stage else "user"
            self.gaps.add(surface, stage_name, gap.channel, gap.reason.value)
