"""The model behind an embedding channel, trained on requests, on events or on sessions.

Legend: Q = requests, R = rows of hard negatives.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from shards.feature_encoder import RequestEncoder
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from training.checkpoints import Checkpoints
from training.ensembles import EnsembleTraining
from training.features import FittingData, fit_spec, model_inputs
from training.hard_negatives import HardNegatives, by_actions
from training.joined_requests import history_log, join_requests
from training.models.ensemble import Ensemble
from training.models.two_tower import TwoTower
from training.paths import PathLearner, path_recall
from training.prod2vec import Prod2VecTraining, train_prod2vec
from training.recipe import Recipe
from training.retrieval import RetrievalSet, Towers, encoded, recall_at, train_two_tower
from training.sequences import SequenceTraining, new_model, train_sequences, windows_of
from training.snapshot import Requests, Snapshot
from training.tensors import RowSource, Tensors, as_tensors
from training.trainer import FitConfig, Fitted, Observer, Seeded, ignore

RECALL_K = 100
"""Early stopping looks at recall among this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A trained model of two towers and what encodes its features."""

    model: Towers
    spec: FeatureSpec
    tokenizer: Tokenizer | None
    encoder: RequestEncoder
    item: Tensors
    epochs: int
    recall: float
    """Recall@100 on the requests that training did not see; NaN where there were none."""
    paths: PathLearner | None = None
    """Paths that were learned with the model."""


def train_embedding(
    recipe: Recipe,
    snapshot: Snapshot,
    tokenizer: Tokenizer | None,
    requests: Requests,
    *,
    seeded: Seeded,
    held_out: Requests | None = None,
    epochs: int | None = None,
    rejected_QR: Tensor | None = None,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> Embedding:
    """Train on `requests`, all of them from before the snapshot's moment, or on the snapshot's events.

    Stops early on the recall over `held_out`; without those it runs for `epochs`. `rejected_QR` are rows of
    candidates that rankers had no use for, of the newest requests, for hard negatives from there.
    """
    checkpoints = checkpoints or Checkpoints()
    if recipe.ensemble is not None:
        train = partial(
            train_embedding,
            snapshot=snapshot,
            tokenizer=tokenizer,
            requests=requests,
            seeded=seeded,
            held_out=held_out,
            epochs=epochs,
            rejected_QR=rejected_QR,
            observe=observe,
            checkpoints=checkpoints,
        )
        return _joined(recipe, recipe.ensemble, train, snapshot, held_out)
    generator = seeded.apply()
    items = ForwardIndex(snapshot.items)
    columns = items.columns(snapshot.items.column_names)
    data = FittingData(contexts=requests.contexts, item_columns=columns)
    spec = fit_spec(recipe.features.two_tower, data, shared=recipe.features.shared)
    encoder = RequestEncoder(spec, tokenizer, items.rows, columns)
    given = _Given(
        recipe=recipe,
        snapshot=snapshot,
        requests=requests,
        held_out=held_out,
        epochs=epochs,
        rejected_QR=rejected_QR,
        items=items,
        spec=spec,
        tokenizer=tokenizer,
        encoder=encoder,
        item=as_tensors(encoder.encode_items(columns)),
        generator=generator,
        observe=observe,
        checkpoints=checkpoints,
    )
    if recipe.prod2vec is not None:
        return _from_sessions(given, recipe.prod2vec)
    return _from_events(given, recipe.sequences) if recipe.sequences is not None else _from_requests(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a model is trained from, whatever its kind."""

    recipe: Recipe
    snapshot: Snapshot
    requests: Requests
    held_out: Requests | None
    epochs: int | None
    rejected_QR: Tensor | None
    items: ForwardIndex
    spec: FeatureSpec
    tokenizer: Tokenizer | None
    encoder: RequestEncoder
    item: Tensors
    generator: torch.Generator
    observe: Observer
    checkpoints: Checkpoints

    def recall(self, model: Towers, paths: PathLearner | None = None) -> Callable[[], float] | None:
        """Return what measures the recall over the requests held out; None where there are none."""
        if not self.held_out:
            return None
        return _recall(model, self.encoder, self.items, self.item, self.held_out, paths)

    def embedding(self, model: Towers, fitted: Fitted, paths: PathLearner | None = None) -> Embedding:
        """Return the trained model with what encodes its features."""
        return Embedding(
            model=model,
            spec=self.spec,
            tokenizer=self.tokenizer,
            encoder=self.encoder,
            item=self.item,
            epochs=fitted.best_epoch,
            recall=fitted.best_metric,
            paths=paths,
        )


def _from_sessions(given: _Given, training: Prod2VecTraining) -> Embedding:
    vectors = train_prod2vec(
        training,
        given.spec,
        given.snapshot.items,
        given.snapshot.events,
        given.generator,
        observe=given.observe,
        checkpoints=given.checkpoints,
    )
    evaluate = given.recall(vectors)
    return Embedding(
        model=vectors,
        spec=given.spec,
        tokenizer=None,
        encoder=given.encoder,
        item=given.item,
        epochs=training.fit.epochs,
        recall=evaluate() if evaluate else math.nan,
    )


def _from_events(given: _Given, training: SequenceTraining) -> Embedding:
    model = new_model(training.model, given.spec, given.item)
    fitted = train_sequences(
        model,
        replace(training, fit=_lasting(training.fit, given.epochs)),
        windows_of(given.snapshot.events, given.snapshot.items, model.max_len),
        len(given.items),
        given.generator,
        evaluate=given.recall(model),
        observe=given.observe,
        checkpoint=given.checkpoints.next("embedding", given.generator),
    )
    return given.embedding(model, fitted)


def _from_requests(given: _Given) -> Embedding:
    recipe, training = given.recipe, given.recipe.two_tower
    inputs = model_inputs(given.spec, given.tokenizer, len(given.items), shared=recipe.features.shared)
    model = TwoTower(training.model, inputs, given.item)
    paths = None
    if recipe.paths is not None:
        width, items = training.model.width, len(given.items)
        paths = PathLearner(recipe.paths, width=width, items=items, generator=given.generator)
    examples = _joined_examples(given.encoder, given.spec, given.items, given.requests, given.snapshot)
    hard_QR = hard_rows(training.hard, given.snapshot, given.requests, given.rejected_QR)
    fitted = train_two_tower(
        model,
        replace(training, fit=_lasting(training.fit, given.epochs)),
        replace(examples, hard_QR=hard_QR),
        given.item,
        given.generator,
        evaluate=given.recall(model, paths),
        observe=given.observe,
        checkpoint=given.checkpoints.next("embedding", given.generator),
        paths=paths,
    )
    return given.embedding(model, fitted, paths)


def hard_rows(
    config: HardNegatives, snapshot: Snapshot, requests: Requests, rejected_QR: Tensor | None
) -> Tensor | None:
    """Return the rows [Q, R] of hard negatives that are known before training; None where there are none."""
    if config.source == "actions":
        users = [context.user.user_id for context in requests.contexts]
        return by_actions(config, snapshot.events, snapshot.items, users)
    if config.source == "rejected" and rejected_QR is not None:
        newest_QR = rejected_QR[-len(requests) :]
        return F.pad(newest_QR, (0, 0, len(requests) - len(newest_QR), 0), value=-1)
    return None


def _lasting(fit: FitConfig, epochs: int | None) -> FitConfig:
    return fit if epochs is None else replace(fit, epochs=epochs)


def examples_of(encoder: RequestEncoder, items: ForwardIndex, requests: Requests) -> RetrievalSet:
    """Return requests as training and recall take them; those of one user have one owner."""
    return _examples(as_tensors(encoder.encode_requests(requests.contexts)), items, requests)


def _joined_examples(
    encoder: RequestEncoder, spec: FeatureSpec, items: ForwardIndex, requests: Requests, snapshot: Snapshot
) -> RetrievalSet:
    """Return the same with features that are joined when a batch needs them."""
    request = join_requests(encoder, spec, requests.contexts, history_log(snapshot.events, items))
    return _examples(request, items, requests)


def _examples(request: RowSource, items: ForwardIndex, requests: Requests) -> RetrievalSet:
    users = {context.user.user_id for context in requests.contexts if context.user.user_id}
    numbers = {user: number for number, user in enumerate(sorted(users))}
    return RetrievalSet(
        request=request,
        row_Q=torch.from_numpy(items.rows_of(requests.item_ids)),
        owner_Q=torch.tensor([numbers.get(context.user.user_id, -1) for context in requests.contexts]),
    )


def _recall(
    model: Towers,
    encoder: RequestEncoder,
    items: ForwardIndex,
    item: Tensors,
    held_out: Requests,
    paths: PathLearner | None = None,
) -> Callable[[], float]:
    """Return what measures recall on requests: over the whole catalogue, or over what lies on their paths."""
    examples = examples_of(encoder, items, held_out)
    if paths is None:
        return lambda: recall_at(model, examples, item, RECALL_K)
    return lambda: path_recall(
        paths.index(),
        encoded(model, examples),
        examples.row_Q,
        model.encode_item(item),
        beam=paths.training.beam,
        k=RECALL_K,
    )[0]


def _joined(
    recipe: Recipe,
    ensemble: EnsembleTraining,
    train: Callable[[Recipe], Embedding],
    snapshot: Snapshot,
    held_out: Requests | None,
) -> Embedding:
    """Train each member and join them.

    Early members stop by their own recall; late ones run as long as the early one that ran longest.
    """
    recipes = [replace(recipe, ensemble=None, two_tower=member.training) for member in ensemble.members]
    trained = [train(each) for each in recipes]
    towers = [each.model for each in trained if isinstance(each.model, TwoTower)]
    weights = [member.weight for member in ensemble.members]
    joined = replace(
        trained[0],
        model=Ensemble(towers, weights, weighted=not ensemble.first).eval(),
        epochs=max(each.epochs for each in trained),
    )
    if held_out is None:
        return joined
    with torch.inference_mode():
        items = ForwardIndex(snapshot.items)
        recall = _recall(joined.model, joined.encoder, items, joined.item, held_out)()
    return replace(joined, recall=recall)
