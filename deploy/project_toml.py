"""Writes a project's `headrace.toml`: every section there, with what can be said in it."""

import json
from collections.abc import Mapping, Sequence

from deploy.project_file import DataSection
from shards.json_codec import to_json
from training.channel_recipe import ChannelRecipe
from training.recipes.general import general_channels
from training.shop_columns import ShopColumns

_HEAD = """\
# {surface}: what is found here, how it is trained and how it is served.
# `headrace up` in this folder trains if nothing is trained yet, and serves. After a change of anything but
# [cluster], `headrace train` trains anew; `headrace up` says what has changed. See docs/own-data.md.

# Searches name it: `headrace search "…" --surface {surface}`.
surface = {name}
"""

_DATA = """
# Where the tables came from; `headrace init .` reads them again, with what is told here.
[data]
folder = {folder}  # the checked tables
{sources}\
taken = {taken}  # actions by which an item counts as found
proxies = {proxies}  # at most so many queries are made where there is no query log
valid_share = {valid_share:g}  # of the queries, in time, where they have no split
test_share = {test_share:g}
"""

_FEATURES = """
# What the columns are read as.
[features]
texts = {texts}  # words that are searched, the title first
categories = {categories}  # one of few values; searched as well
tags = {tags}  # lists of few values; searched as well
numbers = {numbers}
user_categories = {user_categories}
user_numbers = {user_numbers}
shown = {shown}  # comes with every answer
"""

_CHANNELS = """
# What finds candidates: of each at most k, of whom quota stay whatever others find. More sources and their
# settings: docs/channels.md. Channels with gated = true run when the gate opens.
[channels]
{channels}
"""

_RECIPE = """
# The recipe "general" is made from [features] and [channels]; `headrace recipes list` names others.
[recipe]
base = "general"
seed = 0
threads = 1

# Any setting of it, as `headrace train --set` takes them. Rankers learn from the queries of the last
# ranking_days before the test, for which channels find candidates that know nothing of them.
[recipe.set]
ranking_days = {ranking_days:g}
# two_tower.fit.epochs = 3
# two_tower_queries = 50000
# ranking_queries = 4000
# ranker.candidates = 150
"""

_GATE = """
# When embedding retrieval runs: "always", "never", by "rules", or as a model decides "before" or "after"
# lexical retrieval, for the target_rate of searches. docs/gate.md.
[gate]
mode = "before"
target_rate = 0.7
"""

_CLUSTER = """
# How it is served; any setting of a cluster can stand here, and options of `headrace up` go before it.
# Paths are relative to this folder. docs/deployment.md.
[cluster]
shards = 2
replicas = 2
routers = 1
host = "127.0.0.1"
router_port = 50051
controller_port = 50050
"""


def render_project(
    surface: str,
    data: DataSection,
    columns: ShopColumns,
    *,
    ranking_days: float,
    comments: Sequence[str] = (),
) -> str:
    """Return the file of a new project; `comments` say what was done to its tables."""
    said = {name: _value(list(part)) for name, part in to_json(columns).items()}
    return "".join(
        (
            _HEAD.format(surface=surface, name=_value(surface)),
            _data(data),
            *(f"# {comment}\n" for comment in comments),
            _columns(data.columns),
            _FEATURES.format(**said),
            _CHANNELS.format(channels="\n".join(map(_channel, general_channels(columns)))),
            _RECIPE.format(ranking_days=ranking_days),
            _GATE,
            _CLUSTER,
        )
    )


def _data(data: DataSection) -> str:
    names = ("items", "events", "users", "queries")
    sources = "".join(f"{name} = {_value(getattr(data, name))}\n" for name in names if getattr(data, name))
    return _DATA.format(
        folder=_value(data.folder),
        sources=sources,
        taken=_value(list(data.taken)),
        proxies=data.proxies,
        valid_share=data.valid_share,
        test_share=data.test_share,
    )


def _columns(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a section for each table of which columns have other names in its file."""
    sections = []
    for table, names in sorted(columns.items()):
        if names:
            lines = "".join(f"{_key(ours)} = {_value(theirs)}\n" for ours, theirs in sorted(names.items()))
            sections.append(f"\n[data.columns.{table}]\n{lines}")
    return "".join(sections)


def _channel(channel: ChannelRecipe) -> str:
    """Return the channel as one line of what is not its default."""
    usual = to_json(ChannelRecipe(name=channel.name, source=channel.source))
    said = {n: v for n, v in to_json(channel).items() if n in ("source", "k", "quota") or v != usual[n]}
    said = {n: _unusual(v, usual[n]) for n, v in said.items()}
    return f"{_key(channel.name)} = {_value(said)}"


def _unusual(value: object, usual: object) -> object:
    if isinstance(value, dict) and isinstance(usual, dict):
        return {name: part for name, part in value.items() if part != usual[name]}
    return value


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)


def _value(value: object) -> str:
    """Return the value in TOML, whose strings and lists are those of JSON."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(part) for part in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
