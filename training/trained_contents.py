"""What the bundle of a channel holds that is learned by gradient and looked up when serving."""

import pyarrow.compute as pc

from shards.lookup_table import TABLE_FILE, LookupParams
from training.channel_contents import Contents
from training.channel_recipe import ChannelRecipe
from training.checkpoints import Checkpoints
from training.likes import likes
from training.neural_cf import neural_cf
from training.snapshot import Snapshot
from training.trainer import Observer, Seeded


def neural_cf_contents(
    channel: ChannelRecipe, snapshot: Snapshot, seeded: Seeded, observe: Observer, checkpoints: Checkpoints
) -> Contents:
    """Train on the snapshot's events and return a table by user."""
    user_ids = pc.unique(snapshot.events.column("user_id")).to_pylist()
    table = neural_cf(
        channel.neural_cf,
        snapshot.items,
        user_ids,
        likes(snapshot.items, snapshot.events, snapshot.now_ms, actions=channel.actions),
        likes(snapshot.items, snapshot.events, snapshot.now_ms),
        top=channel.top,
        seeded=seeded,
        observe=observe,
        checkpoints=checkpoints,
    )
    return Contents(engine="table", params=LookupParams(key="user"), tables={TABLE_FILE: table})
