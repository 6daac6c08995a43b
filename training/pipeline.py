"""From a dataset to a release: everything that `headrace train` does, without a command line.

Two moments matter. Rankers must not train on candidates from channels that have seen their queries: those
would look better than they will ever be. So channels are first made as of an early moment, rankers learn
from the queries between it and the test, and then channels are made again, with the same settings and seed,
from all that lies before the test. A recipe of channels that learn nothing is made once, as of the test.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shards.release import Release
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.glmix_bundle import write_glmix
from training.glmix_training import train_glmix
from training.learning import learn, trained_embedding
from training.release_writing import release_of, write_channels, write_gate_bundle, write_ranker_bundles
from training.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run made: a release whose bundles are on disk, and figures on queries held out of training."""

    release: Release
    figures: Mapping[str, float]


def train(run: Run, destination: Destination) -> Trained:
    """Train every model and write its bundles.

    Equal runs give bundles with equal scores. Raises FileExistsError where a bundle of this name and
    version exists.
    """
    test_ms = known_until_ms(run.dataset)
    learned = learn(run, test_ms, destination.prefix)
    late = run.snapshot(test_ms)
    requests = run.requests_until(test_ms)
    embedding = trained_embedding(
        run,
        late,
        learned.tokenizer,
        requests,
        early=learned.embedding,
        rejected_QR=learned.rankers.rejected_QR if learned.rankers else None,
    )
    write_channels(run, late, learned.tokenizer, embedding, requests, destination)
    if learned.rankers is not None:
        write_ranker_bundles(run, learned.rankers, late, learned.requests.contexts, destination)
    if learned.gate is not None:
        write_gate_bundle(run, learned.gate, late, learned.log, destination)
    figures = dict(learned.figures())
    if run.recipe.glmix is not None:
        glmix = train_glmix(run, late)
        write_glmix(glmix, late, run.browsing(late).contexts, destination)
        figures |= glmix.figures
    return Trained(
        release=release_of(run, destination, test_ms, rankers=learned.rankers, merge=learned.merge),
        figures=figures,
    )


def rehearse(run: Run) -> Mapping[str, float]:
    """Return the figures on queries held out of training, having learnt all and written nothing."""
    return learn(run, known_until_ms(run.dataset), "rehearsal").figures()
