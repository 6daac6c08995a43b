"""The parameters of a model in its bundle: what a later training goes on from.

Shards do not read them: they run the exported programs. Items may have come and gone since; the table of item
ids is put in the order of the items that there are now, and a new item begins as at the first training.

Legend: N = items, D = width of a vector.
"""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from shards.bundle import Bundle
from shards.catalogue import CATALOGUE_FILE
from shards.errors import CorruptBundle, FieldViolation, InvalidInput
from shards.feature_kinds import ITEM_ID_COLUMN
from shards.forward_index import ITEMS_FILE
from shards.two_tower import PARAMETERS_FILE
from training.features import ITEM_TABLE, Shared, model_inputs
from training.models.fields import ModelInputs, table_weight
from training.models.glmix import GLMix, GLMixConfig
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.tensors import Tensors


def save_parameters(model: nn.Module, folder: Path) -> None:
    """Write the parameters into a bundle's folder, as plain arrays."""
    # A table that several parts share is there once, which it is not in the state of the module.
    arrays = {name: value.detach().numpy() for name, value in model.named_parameters()}
    np.savez(folder / PARAMETERS_FILE, allow_pickle=False, **arrays)


def restored(
    config: TwoTowerConfig,
    bundle: Bundle,
    item_ids: Sequence[str],
    *,
    item: Tensors | None = None,
    shared: Shared = (),
) -> TwoTower:
    """Return the model of a bundle over these items, in the order that they have now.

    `item` holds their features [N, …], which a history may read, `shared` the features that share a table.
    Raises `InvalidInput` for a bundle without parameters or with those of another model, and `CorruptBundle`
    where they cannot be read.
    """
    inputs = _inputs_of(bundle, item_ids, shared)
    model = TwoTower(config, inputs, item)
    weight = table_weight(model.tables, ITEM_TABLE) if ITEM_TABLE in inputs.tables else None
    _refill(model, weight, bundle, item_ids)
    return model.eval()


def restored_glmix(config: GLMixConfig, bundle: Bundle, item_ids: Sequence[str]) -> GLMix:
    """Return the GLMix of a bundle over these items; a new one has no effect of its own yet.

    Raises what `restored` raises.
    """
    model = GLMix(config, _inputs_of(bundle, item_ids, ()))
    _refill(model, model.item_effect_MF, bundle, item_ids)
    return model.eval()


def _inputs_of(bundle: Bundle, item_ids: Sequence[str], shared: Shared) -> ModelInputs:
    if bundle.spec is None or PARAMETERS_FILE not in bundle.manifest.files:
        problem = f"{bundle.manifest.model_version} holds no parameters to go on from: train it anew"
        raise InvalidInput(FieldViolation("model", problem))
    return model_inputs(bundle.spec, bundle.tokenizer, len(item_ids), shared=shared)


def _refill(model: nn.Module, of_items: Tensor | None, bundle: Bundle, item_ids: Sequence[str]) -> None:
    """Give the model the bundle's parameters, the rows of the table `of_items` in the order of `item_ids`."""
    own, saved = dict(model.named_parameters()), _read(bundle.file(PARAMETERS_FILE))
    if of_items is not None:
        name = next(name for name, parameter in own.items() if parameter is of_items)
        saved[name] = _in_order(of_items.detach(), saved.get(name), _known_ids(bundle), item_ids)
    if {n: value.shape for n, value in saved.items()} != {n: value.shape for n, value in own.items()}:
        problem = f"{bundle.manifest.model_version} was trained with other settings than the recipe has"
        raise InvalidInput(FieldViolation("model", problem))
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def _in_order(
    new_ND: Tensor, old_ND: Tensor | None, old_ids: Sequence[str], item_ids: Sequence[str]
) -> Tensor:
    """Return the vectors of items that the old table knows, and the new table's own of the others.

    Row 0 is of no item, the first item has row 1. A table of other items or of another width fits nowhere.
    """
    if old_ND is None or len(old_ND) != len(old_ids) + 1 or old_ND.shape[1:] != new_ND.shape[1:]:
        return new_ND[:0]
    old_row = {item_id: row for row, item_id in enumerate(old_ids, start=1)}
    row_N = torch.tensor([0, *(old_row.get(item_id, -1) for item_id in item_ids)])
    return torch.where((row_N >= 0).unsqueeze(1), old_ND[row_N.clamp(min=0)], new_ND)


def _known_ids(bundle: Bundle) -> list[str]:
    """Return the items as the towers know them, in the order of rows."""
    file = CATALOGUE_FILE if CATALOGUE_FILE in bundle.manifest.files else ITEMS_FILE
    table = pq.read_table(bundle.file(file), columns=[ITEM_ID_COLUMN], partitioning=None)
    ids: list[str] = table.column(ITEM_ID_COLUMN).to_pylist()
    return ids


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error
