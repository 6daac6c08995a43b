"""A shop as a team would bring it, of any size: items and events in Parquet files under a team's own names.

What it holds has structure that can be learnt: shoppers have tastes (a few kinds of goods and a maker each),
kinds go together in a basket, a few items of each kind are far more popular than the rest, new items appear
while others are sold, and views come before purchases. Equal sizes and seeds give equal files.

Legend: N = items, U = shoppers, V = visits, E = events.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ints = NDArray[np.int64]

KINDS, MAKERS_OF_KIND, TASTES = 400, 10, 4
_MAKERS, _DEPARTMENTS, _COLOURS = 300, 40, 24
_DAYS, _DAY_S = 180, 86_400
_START_S = 1_767_225_600  # 2026-01-01
_EVENTS_OF_VISIT = 5
_OWN_TASTE, _GOES_WITH, _OWN_MAKER, _NEW_SHARE, _BOUGHT = 0.75, 0.25, 0.6, 0.15, 0.7
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnShop:
    """Sizes and the seed; `kind_N` and `maker_N` are what `items` are of."""

    items: int = 50_000
    shoppers: int = 60_000
    events: int = 1_000_000
    seed: int = 0

    def write(self, folder: Path) -> None:
        """Write `items.parquet` and `events.parquet`."""
        random = np.random.default_rng(self.seed)
        kind_N = np.sort(np.arange(self.items) % KINDS)
        maker_of_kind = random.integers(0, _MAKERS, (KINDS, MAKERS_OF_KIND))
        slot_N = random.integers(0, MAKERS_OF_KIND, self.items)
        maker_N = maker_of_kind[kind_N, slot_N]
        pq.write_table(self._items(kind_N, maker_N, random), folder / "items.parquet")
        pq.write_table(self._events(kind_N, maker_N, random), folder / "events.parquet")

    def _items(self, kind_N: Ints, maker_N: Ints, random: np.random.Generator) -> pa.Table:
        nouns, makers = _words(KINDS * 2, random), _words(_MAKERS, random)
        colours = np.array(_words(_COLOURS, random))[random.integers(0, _COLOURS, self.items)]
        departments = _words(_DEPARTMENTS, random)
        price_N = np.exp(random.normal(2.5, 0.8, KINDS)[kind_N] + random.normal(0, 0.3, self.items))
        numbers = random.integers(1, 1000, self.items).tolist()
        parts = zip(maker_N.tolist(), colours.tolist(), kind_N.tolist(), numbers, strict=True)
        names = [f"{makers[m]} {colour} {nouns[2 * k]} {nouns[2 * k + 1]} {n}" for m, colour, k, n in parts]
        return pa.table(
            {
                "sku": _sku(np.arange(self.items)),
                "name": names,
                "department": [departments[k % _DEPARTMENTS] for k in kind_N.tolist()],
                "maker": [makers[m] for m in maker_N.tolist()],
                "colour": colours,
                "price": np.round(price_N, 2),
            }
        )

    def _events(self, kind_N: Ints, maker_N: Ints, random: np.random.Generator) -> pa.Table:
        """Return visits of some views each, of which most end with a purchase of what was seen last."""
        visits = round(self.events / (_EVENTS_OF_VISIT - 1 + _BOUGHT) * 1.01)
        user_V = (self.shoppers * random.random(visits) ** 1.6).astype(np.int64)
        start_V = np.sort(random.integers(0, _DAYS * _DAY_S, visits))
        tastes_UT = random.integers(0, KINDS, (self.shoppers, TASTES))
        own_V = tastes_UT[user_V, random.integers(0, TASTES, visits)]
        kind_V = np.where(random.random(visits) < _OWN_TASTE, own_V, _few(random.random(visits), KINDS))
        choose = _Chooser(kind_N, maker_N, random)
        favourite_V = choose.favourites(self.shoppers)[user_V]
        columns = []
        for step in range(_EVENTS_OF_VISIT - 1):
            turned = random.random(visits) < (_GOES_WITH if step else 0.0)
            # Kinds go together by pairs: who looks at one then looks at the other.
            kind_V = np.where(turned, kind_V ^ 1, kind_V)
            columns.append(choose.items(kind_V, favourite_V, start_V / (_DAYS * _DAY_S)))
        columns.append(columns[-1])
        item_VE = np.stack(columns, axis=1)
        bought_V = random.random(visits) < _BOUGHT
        kept_VE = np.ones(item_VE.shape, np.bool_)
        kept_VE[:, -1] = bought_V
        second_VE = start_V[:, None] + 40 * np.arange(_EVENTS_OF_VISIT)
        action_VE = np.broadcast_to(np.array(["view"] * (_EVENTS_OF_VISIT - 1) + ["purchase"]), item_VE.shape)
        user_VE = np.broadcast_to(user_V[:, None], item_VE.shape)
        made = pa.table(
            {
                "customer": [f"c{n}" for n in user_VE[kept_VE].tolist()],
                "sku": _sku(item_VE[kept_VE]),
                "event_type": action_VE[kept_VE],
                "time": pa.array((_START_S + second_VE[kept_VE]) * 1000, pa.timestamp("ms", tz="UTC")),
            }
        )
        assert len(made) >= self.events
        return made.slice(0, self.events)


class _Chooser:
    """Chooses items of a kind: popular ones, of the shopper's own maker where it makes that kind."""

    def __init__(self, kind_N: Ints, maker_N: Ints, random: np.random.Generator) -> None:
        self._random = random
        # Items of a kind stand together, most popular first; so do those of a kind and a maker.
        self._maker_N, order = maker_N, np.arange(len(kind_N))
        self._first, self._size = _runs(kind_N, KINDS)
        pair_N = kind_N * _MAKERS + maker_N
        self._by_pair = order[np.argsort(pair_N, kind="stable")]
        self._pair_first, self._pair_size = _runs(np.sort(pair_N), KINDS * _MAKERS)
        # Some items appear only while the shop is open: the share of the time that is over then.
        self._since_N = np.where(random.random(len(kind_N)) < _NEW_SHARE, random.random(len(kind_N)), 0.0)

    def favourites(self, shoppers: int) -> Ints:
        """Return each shopper's maker [U]."""
        return self._random.integers(0, _MAKERS, shoppers)

    def items(self, kind_V: Ints, maker_V: Ints, moment_V: NDArray[np.float64]) -> Ints:
        """Return an item of each kind [V] that is there at the moment, 0 to 1."""
        popular_V = self._first[kind_V] + _few(self._random.random(len(kind_V)), self._size[kind_V])
        pair_V = kind_V * _MAKERS + maker_V
        among_V = np.maximum(self._pair_size[pair_V], 1)
        at_V = self._pair_first[pair_V] + _few(self._random.random(len(kind_V)), among_V)
        own_V = self._by_pair[np.minimum(at_V, len(self._by_pair) - 1)]
        wanted_V = (self._pair_size[pair_V] > 0) & (self._random.random(len(kind_V)) < _OWN_MAKER)
        chosen_V = np.where(wanted_V, own_V, popular_V)
        unborn_V = self._since_N[chosen_V] > moment_V
        return np.where(unborn_V, self._first[kind_V], chosen_V)


def _few(share: NDArray[np.float64], size: Ints | int) -> Ints:
    """Return a place below `size` for each share from 0 to 1, low ones far more often."""
    return (share**3 * size).astype(np.int64)


def _runs(sorted_N: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return where each group of the sorted numbers begins, and its size."""
    first = np.searchsorted(sorted_N, np.arange(groups))
    return first, np.searchsorted(sorted_N, np.arange(groups), side="right") - first


def _sku(numbers: Ints) -> list[str]:
    return [f"SKU{number:06}" for number in numbers.tolist()]


def _words(count: int, random: np.random.Generator) -> list[str]:
    """Return different words of two or three syllables."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = range(random.integers(2, 4))
        letters = [(_CONSONANTS[random.integers(18)], _VOWELS[random.integers(5)]) for _ in syllables]
        words["".join(c + v for c, v in letters)] = None
    return list(words)
