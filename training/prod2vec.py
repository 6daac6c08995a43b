"""Trains prod2vec over sessions, and brings the spaces of two shops into one.

Bianchi et al., "Fantastic Embeddings and How to Align Them: Zero-Shot Inference in a Multi-Shop Scenario"
(SIGIR eCom 2020, arXiv 2007.14906): each shop's vectors are learned from its own sessions, so that no
coordinate of one means anything in the other. "content" aligns them by an orthogonal map between items of
like titles; "behaviour" then trains that map on sessions of people who shop at both.

Legend: E = events by session, S = sessions, B = targets of a batch, L = items of a context, N = items, D =
width, A = anchors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shards.feature_kinds import HistoryItems, ItemId
from shards.features import FeatureSpec
from training import losses
from training.checkpoints import Checkpoints
from training.datasets.tables import row_numbers
from training.models.prod2vec import BagOfItems, Prod2Vec, SpaceMap
from training.samplers import MixedSampler
from training.space_alignment import content_map
from training.trainer import FitConfig, Observer, fit, ignore, shuffled_batches

Ints = NDArray[np.int64]

ALIGNMENTS = ("none", "content", "behaviour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prod2VecTraining:
    """How to learn vectors, and how to align those of the two shops that the column `shop` names."""

    width: int = 48
    context: int = 10
    """Other items of the session that a context is drawn from."""
    negatives: int = 512
    negative_power: float = 0.75
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=10, batch_size=1024, learning_rate=5e-3))
    shop: str = ""
    """The item column of two values by which sessions are divided; empty for one shop."""
    alignment: str = "behaviour"
    cross_sessions: int = 500
    """Sessions in both shops, the newest, that behaviour goes by."""
    alignment_fit: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=10, batch_size=256, learning_rate=2e-3)
    )

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}, not {self.alignment!r}")
        if min(self.width, self.context, self.cross_sessions) < 1:
            raise ValueError("width, context and cross_sessions must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Items by session, sessions in order of time: session s has those from starts[s] to starts[s + 1]."""

    starts: Ints
    row_E: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    def kept(self, kept_E: NDArray[np.bool_]) -> "Sessions":
        """Return the sessions with some of their items."""
        ends = np.concatenate([[0], np.cumsum(kept_E)])[self.starts]
        return Sessions(starts=ends, row_E=self.row_E[kept_E])

    def numbers(self) -> Ints:
        """Return the session of each item [E]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def sessions_of(events: pa.Table, items: pa.Table) -> Sessions:
    """Return the distinct items of each session; events are in order of time.

    Raises ValueError where events tell no sessions.
    """
    if "session_id" not in events.column_names:
        raise ValueError("prod2vec needs events with a session_id")
    row_E = row_numbers(events.column("item_id"), items.column("item_id"))
    named = events.column("session_id")
    session_E = row_numbers(named, pa.chunked_array([pc.unique(named).drop_null()]))
    pairs = np.unique(np.stack([session_E, row_E], axis=1)[(session_E >= 0) & (row_E >= 0)], axis=0)
    count = int(pairs[:, 0].max(initial=-1)) + 1
    return Sessions(starts=np.searchsorted(pairs[:, 0], np.arange(count + 1)), row_E=pairs[:, 1])


def train_prod2vec(
    training: Prod2VecTraining,
    spec: FeatureSpec,
    items: pa.Table,
    events: pa.Table,
    generator: torch.Generator,
    *,
    observe: Observer = ignore,
    checkpoints: Checkpoints,
) -> Prod2Vec:
    """Return the vectors of all items; those of the first shop are brought into the space of the second.

    Raises ValueError where the spec has not one history and one item id, or the shop column not two values.
    """
    learner = _Learner(training, generator, observe, checkpoints)
    sessions, shop_N = sessions_of(events, items), _shops(items, training.shop)
    met_N = torch.from_numpy(np.bincount(sessions.row_E, minlength=len(items)) > 0)
    vector_ND = torch.zeros(len(items), training.width)
    for shop in range(int(shop_N.max()) + 1):
        here_N = (shop_N == shop) & met_N
        own = sessions.kept(here_N.numpy()[sessions.row_E])
        vector_ND[here_N] = learner.vectors(own, len(items))[here_N]
    (history,) = [f.name for f in spec.features if isinstance(f, HistoryItems)]
    (item,) = [f.name for f in spec.features if isinstance(f, ItemId)]
    model = Prod2Vec(vector_ND, history=history, item=item).eval()
    if not training.shop:
        return model
    return aligned(model, training, items, events, generator, observe=observe, checkpoints=checkpoints)


def aligned(
    model: Prod2Vec,
    training: Prod2VecTraining,
    items: pa.Table,
    events: pa.Table,
    generator: torch.Generator,
    *,
    observe: Observer = ignore,
    checkpoints: Checkpoints,
) -> Prod2Vec:
    """Return vectors of two shops in one space, from a model of two: those of the second stay as they are."""
    if training.alignment == "none":
        return model
    vector_ND, shop_N = model.vector_ND[1:].clone(), _shops(items, training.shop)
    met_N = vector_ND.abs().sum(dim=1) > 0
    source_N, target_N = (met_N & (shop_N == shop) for shop in (0, 1))
    map_DD = content_map(vector_ND, items, source_N, target_N)
    if training.alignment == "behaviour":
        learner = _Learner(training, generator, observe, checkpoints)
        sessions = sessions_of(events, items)
        map_DD = learner.behaviour_map(map_DD, vector_ND, sessions, source_N, target_N)
    vector_ND[source_N] = F.normalize(vector_ND[source_N] @ map_DD, dim=-1)
    return Prod2Vec(vector_ND, history=model.history, item=model.item).eval()


def _shops(items: pa.Table, column: str) -> Tensor:
    """Return the number of each item's shop [N]."""
    if not column:
        return torch.zeros(len(items), dtype=torch.int64)
    names, shop_N = np.unique(items.column(column).to_numpy(), return_inverse=True)
    if len(names) != 2:
        raise ValueError(f"prod2vec aligns two shops; the column {column!r} has {len(names)} values")
    return torch.from_numpy(shop_N)


@dataclass(frozen=True, slots=True)
class _Learner:
    """What all steps share."""

    training: Prod2VecTraining
    generator: torch.Generator
    observe: Observer
    checkpoints: Checkpoints

    def vectors(self, sessions: Sessions, items: int) -> Tensor:
        """Return unit vectors [N, D] that predict the items of a session from others of it."""
        model = BagOfItems(items, self.training.width)
        row_E, session_E = torch.from_numpy(sessions.row_E), torch.from_numpy(sessions.numbers())
        start_S = torch.from_numpy(sessions.starts)
        length_E = (start_S[1:] - start_S[:-1])[session_E]
        target_E = torch.nonzero(length_E > 1).squeeze(1)
        sampler = self._sampler(row_E, items)

        def loss(batch_B: Tensor) -> Tensor:
            at_B = target_E[batch_B]
            part_BL = torch.rand(len(at_B), self.training.context, generator=self.generator)
            drawn_BL = start_S[session_E[at_B]].unsqueeze(1) + (part_BL * length_E[at_B].unsqueeze(1)).long()
            other_BL = row_E[drawn_BL]
            context_BL = (other_BL + 1).masked_fill(other_BL == row_E[at_B].unsqueeze(1), 0)
            return self._softmax(sampler, row_E[at_B], lambda row_M: model(context_BL, row_M))

        self._fit("prod2vec", model, self.training.fit, len(target_E), loss)
        return F.normalize(model.context.weight[1:].detach(), dim=-1)

    def behaviour_map(
        self, start_DD: Tensor, vector_ND: Tensor, sessions: Sessions, source_N: Tensor, target_N: Tensor
    ) -> Tensor:
        """Return the map trained on the newest sessions with items of both shops."""
        from_E, to_E = (mask_N.numpy()[sessions.row_E] for mask_N in (source_N, target_N))
        both_S = np.logical_and(*(np.diff(sessions.kept(here_E).starts) > 0 for here_E in (from_E, to_E)))
        newest_S = np.flatnonzero(both_S)[-self.training.cross_sessions :]
        chosen_E = np.isin(sessions.numbers(), newest_S)
        mean_SD = _means(sessions, from_E & chosen_E, vector_ND)
        row_P = torch.from_numpy(sessions.row_E[to_E & chosen_E])
        session_P = torch.from_numpy(sessions.numbers()[to_E & chosen_E])
        # Only items of the other shop are negatives: those of this one are not in its space yet.
        row_T = torch.nonzero(target_N).squeeze(1)
        number_P = torch.searchsorted(row_T, row_P)
        model, sampler = SpaceMap(start_DD), self._sampler(number_P, len(row_T))

        def loss(batch_B: Tensor) -> Tensor:
            query_BD = mean_SD[session_P[batch_B]]
            return self._softmax(
                sampler, number_P[batch_B], lambda number_M: model(query_BD, vector_ND[row_T[number_M]])
            )

        self._fit("alignment", model, self.training.alignment_fit, len(row_P), loss)
        return model.weight_DD.detach()

    def _sampler(self, row_E: Tensor, items: int) -> MixedSampler:
        return MixedSampler(
            torch.bincount(row_E, minlength=items),
            drawn=self.training.negatives,
            power=self.training.negative_power,
        )

    def _softmax(self, sampler: MixedSampler, row_B: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        sampled = sampler.sample(row_B, torch.full_like(row_B, -1), self.generator)
        logit_BM = losses.corrected(logits(sampled.row_M), sampled.log_q_M)
        return F.cross_entropy(logit_BM, sampled.positive_B)

    def _fit(
        self, name: str, model: nn.Module, config: FitConfig, size: int, loss: Callable[[Tensor], Tensor]
    ) -> None:
        fit(
            name,
            model,
            config,
            batches=lambda: shuffled_batches(size, config.batch_size, self.generator),
            loss=loss,
            observe=self.observe,
            checkpoint=self.checkpoints.next(name, self.generator),
        )


def _means(sessions: Sessions, kept_E: NDArray[np.bool_], vector_ND: Tensor) -> Tensor:
    """Return the mean vector [S, D] of some items of each session; zero where it has none."""
    session_E, row_E = (torch.from_numpy(part[kept_E]) for part in (sessions.numbers(), sessions.row_E))
    total_SD = torch.zeros(len(sessions), vector_ND.shape[1]).index_add(0, session_E, vector_ND[row_E])
    return F.normalize(total_SD, dim=-1)
