"""Opens a bundle with the engine that its manifest names."""

from collections.abc import Callable, Mapping

from shards.author import open_author
from shards.bundle import Bundle
from shards.deep_retrieval import open_deep_retrieval
from shards.errors import MismatchedBundle
from shards.geo import open_geo
from shards.item_vectors import open_item_vectors
from shards.lexical import open_lexical
from shards.lookup_table import open_lookup_table
from shards.manifest import MANIFEST_FILE
from shards.multi_task import open_multi_task
from shards.release import Stage
from shards.stages import Retriever, Scorer, Servable
from shards.three_tower import open_three_tower
from shards.two_tower import open_two_tower
from shards.user_cf import open_user_cf

RETRIEVAL_ENGINES: Mapping[str, Callable[[Bundle, str], Retriever]] = {
    "author": open_author,
    "deep_retrieval": open_deep_retrieval,
    "geo": open_geo,
    "item_vectors": open_item_vectors,
    "lexical": open_lexical,
    "table": open_lookup_table,
    "two_tower": open_two_tower,
    "user_cf": open_user_cf,
}
SCORING_ENGINES: Mapping[str, Callable[[Bundle, str], Scorer]] = {
    "multi_task": open_multi_task,
    "three_tower": open_three_tower,
}


def open_servable(bundle: Bundle, device: str) -> Servable:
    """Return what answers for a verified bundle on `device`, "cpu" or "cuda:0"; goldens are not replayed.

    BundleError names the file at fault, also where the engine is not known or not of the bundle's stage.
    """
    manifest = bundle.manifest
    engines: Mapping[str, Callable[[Bundle, str], Servable]] = (
        RETRIEVAL_ENGINES if manifest.stage is Stage.RETRIEVAL else SCORING_ENGINES
    )
    if manifest.engine not in engines:
        raise MismatchedBundle(
            MANIFEST_FILE,
            f"engine {manifest.engine!r} is none for {manifest.stage.value}: {', '.join(engines)}",
        )
    return engines[manifest.engine](bundle, device)
