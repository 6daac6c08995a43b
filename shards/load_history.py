"""What became of a shard's loads since its process began, bundles that are gone included."""

from shards.measures import LOAD_BOUNDS_S, Counts, Distributions


class LoadHistory:
    """Loads by outcome, how long those took that succeeded, and evictions; written on the loader's thread."""

    def __init__(self) -> None:
        self.loads = Counts("outcome")
        self.load_s = Distributions(bounds=LOAD_BOUNDS_S)
        self.evictions = Counts()

    def loaded(self, took_s: float) -> None:
        """Note a load that succeeded."""
        self.loads.add("ok")
        self.load_s.observe(took_s)

    def failed(self, *, for_room: bool = False) -> None:
        """Note one that did not; `for_room` where nothing may be evicted for it just now."""
        self.loads.add("no_room" if for_room else "failed")

    def evicted(self, bundles: int) -> None:
        """Note bundles that were made cold."""
        for _ in range(bundles):
            self.evictions.add()
