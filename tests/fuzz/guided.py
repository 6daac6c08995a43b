"""One decoder for some seconds by atheris: `python -m tests.fuzz.guided TARGET SECONDS`."""

import importlib
import random
import sys

import atheris  # type: ignore[import-untyped]

from tests.fuzz.mutation import mutated

_OURS = [
    *("services.codec", "services.placement_json", "services.shard_record", "services.access"),
    *("shards.manifest", "shards.json_codec", "shards.golden", "shards.reference", "shards.features"),
    *("deploy.project_file", "deploy.event_lines", "deploy.outcome_lines", "shards.npy"),
]


def main() -> None:
    """Instrument our decoders, and have them asked until the time is over or something is found."""
    name, seconds = sys.argv[1], sys.argv[2]
    with atheris.instrument_imports(include=_OURS):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    seeds = target.seeds()

    def ask(data: bytes) -> None:
        # libFuzzer begins with nothing; what it makes says how a seed is altered, or is asked itself.
        if len(data) > 8 and data[0] % 2:
            rng = random.Random(data)
            target.check(mutated(rng.choice(seeds), rng))
        else:
            target.check(data[1:])

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20"], ask)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
