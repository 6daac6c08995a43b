"""A GLMix of real labels, written, restored and asked on a real shard."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from services.codec import Scoring
from shards.bundle import Bundle, open_bundle
from shards.candidates import Candidates
from shards.errors import InvalidInput
from tests.services.process_shards import process_shards
from tests.services.shard_client import connect
from tests.training.movielens_slice import real_slice
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.event_labels import Labels, labels_at
from training.glmix import RANDOM, GLMixFit, coefficients_of, logits
from training.glmix_bundle import write_glmix
from training.glmix_examples import encoded
from training.glmix_training import TrainedGLMix, figures_of, train_glmix
from training.parameters import restored_glmix
from training.recipes import RECIPES
from training.run import Run
from training.snapshot import Snapshot


@dataclass(frozen=True)
class Made:
    """A GLMix of the films that 200 users liked before the test, and its bundle."""

    run: Run
    known: Snapshot
    trained: TrainedGLMix
    root: Path
    bundle: Bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    recipe, dataset = RECIPES["movielens_glmix"], real_slice(200)
    assert recipe.glmix
    quick = replace(recipe.glmix, fit=GLMixFit(fixed_l2=100, user_l2=30, item_l2=30, choose=False))
    run = Run(
        recipe=replace(recipe, glmix=quick, refresh_days=14.0), dataset=dataset, seed=0, gate=lambda *_: True
    )
    known = run.snapshot(known_until_ms(dataset))
    trained = train_glmix(run, known)
    root = tmp_path_factory.mktemp("models")
    destination = Destination(root=root, prefix="films", version="1")
    write_glmix(trained, known, run.browsing(known).contexts, destination)
    model = destination.model("ranker")
    return Made(run, known, trained, root, open_bundle(root / model.model / model.version, model))


def test_random_effects_of_real_users_and_films_foretell_what_they_like(made: Made) -> None:
    glmix = made.run.recipe.glmix
    assert glmix
    assert made.trained.figures["glmix AUC"] > 0.6
    labels = labels_at(made.run.dataset.events, glmix.labels, 1 << 62).since(made.known.now_ms)
    examples = encoded(
        made.trained.model, made.trained.spec, made.known.items, made.run.dataset, labels, 14.0
    )
    fitted = coefficients_of(made.trained.model)
    assert figures_of(fitted, examples).log_loss < figures_of(fitted, examples, ("fixed",)).log_loss


def test_a_shard_answers_what_the_model_does(made: Made) -> None:
    contexts = made.run.browsing(made.known).contexts[-3:]
    films = Candidates(item_ids=tuple(made.known.items.column("item_id").to_pylist()[:40]))

    async def main() -> list[dict[str, float]]:
        async with process_shards(made.root / "state") as host:
            await host.start("shard-0")
            async with connect(await host.address("shard-0")) as client:
                model = made.bundle.manifest.model_version
                await client.load(model, made.bundle.path)
                asked = [Scoring(model=model, context=context, candidates=films) for context in contexts]
                found = [(await client.rank(one)).candidates for one in asked]
        return [dict(zip(each.item_ids, each.columns["like"].tolist(), strict=True)) for each in found]

    answers = asyncio.run(main())
    for context, answer in zip(contexts, answers, strict=True):
        expected = _probabilities(made, context.user.user_id, films)
        np.testing.assert_allclose([answer[i] for i in films.item_ids], expected, rtol=1e-4)
    assert answers[0] != answers[1], "each user has effects"


def _probabilities(made: Made, user_id: str, films: Candidates) -> list[float]:
    """Return the sigmoid of the added effects, as the fit has them."""
    asked = len(films)
    labels = Labels(
        user_ids=pa.array([user_id] * asked),
        item_ids=pa.array(films.item_ids),
        opened_ms_L=np.full(asked, made.known.now_ms),
        known_ms_L=np.full(asked, made.known.now_ms),
        label_L=np.zeros(asked, np.bool_),
        weight_L=np.ones(asked),
    )
    examples = encoded(
        made.trained.model, made.trained.spec, made.known.items, made.run.dataset, labels, 1e-8
    )
    values: list[float] = torch.sigmoid(logits(coefficients_of(made.trained.model), examples)).tolist()
    return values


def test_a_bundle_gives_its_effects_back_for_films_that_came_and_went(made: Made) -> None:
    glmix = made.run.recipe.glmix
    assert glmix
    ids = made.known.items.column("item_id").to_pylist()
    model = restored_glmix(glmix.model, made.bundle, ["new", *reversed(ids[3:])])
    before, after = coefficients_of(made.trained.model), coefficients_of(model)
    torch.testing.assert_close(after.item_MF[2:], before.item_MF[4:].flip(0), rtol=0, atol=0)
    assert not after.item_MF[:2].any()
    torch.testing.assert_close(after.user_MF, before.user_MF, rtol=0, atol=0)
    assert all(before.table(part).any() for part in RANDOM)


def test_strengths_are_settings_that_a_retraining_keeps(made: Made) -> None:
    assert made.bundle.manifest.settings == (
        "glmix.fit.fixed_l2=100",
        "glmix.fit.user_l2=30",
        "glmix.fit.item_l2=30",
        "glmix.fit.choose=false",
    )
    assert made.bundle.manifest.tasks == ("like",)


def test_without_labels_of_both_kinds_nothing_is_learned(made: Made) -> None:
    nothing = replace(made.run.dataset, events=made.run.dataset.events.slice(0, 0))
    with pytest.raises(InvalidInput, match="none of both kinds"):
        train_glmix(replace(made.run, dataset=nothing), made.known)
