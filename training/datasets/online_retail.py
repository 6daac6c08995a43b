"""Online Retail II 2009-10: a UK gift shop's purchases, with queries made from the bought titles.

Source: UCI 502, CC BY 4.0. **The queries are proxies** derived from the item that was then bought,
never a search log; every figure computed on them has to say so. Train until 2010-09, valid October,
test from 2010-11-01.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.tables import TIMESTAMP, Dataset, canonical_types, sort_tables

_COLUMNS = {
    # `price_gbp` (a median over the whole period) and `first_sold` of the items look ahead, so they are
    # never even read; prices as of a moment come from the events.
    "items": ["item_id", "title"],
    "purchases": ["invoice_id", "item_id", "user_id", "timestamp", "quantity", "price_gbp", "country"],
    "queries": ["query_id", "timestamp", "user_id", "query", "item_id", "split"],
}


def load(data_dir: Path) -> Dataset:
    """Read `online_retail` under the data directory into the canonical tables and check them.

    A purchase is one event with the action "purchase", its `session_id` the invoice. Raises
    `InvalidInput` if a file is missing or a table breaks the schema.
    """
    raw = {name: _read(data_dir / "online_retail" / f"{name}.parquet") for name in _COLUMNS}
    purchases = _with_invoice_time(raw["purchases"])
    dataset = Dataset(
        name="online_retail",
        items=raw["items"],
        users=_users(purchases),
        events=_events(purchases),
        queries=_queries(raw["queries"], purchases),
        queries_are_proxies=True,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    return canonical_types(pq.read_table(path, columns=_COLUMNS[path.stem]))


def _with_invoice_time(purchases: pa.Table) -> pa.Table:
    """Return the purchases with every line at the time of its invoice's earliest line.

    35 of 18,966 invoices span up to two minutes. A query stands at one of its invoice's times, so with
    one time per invoice "strictly before the query" leaves out the query's own invoice and no other.
    """
    starts = purchases.group_by("invoice_id").aggregate([("timestamp", "min")])
    rows = pc.index_in(purchases.column("invoice_id"), value_set=starts.column("invoice_id"))
    index = purchases.column_names.index("timestamp")
    times = starts.column("timestamp_min").take(rows).cast(TIMESTAMP)
    return purchases.set_column(index, "timestamp", times)


def _users(purchases: pa.Table) -> pa.Table:
    """Return the customers with the country of their first purchase, so that it never looks ahead."""
    ordered = purchases.sort_by([("timestamp", "ascending"), ("invoice_id", "ascending")])
    first = ordered.group_by("user_id", use_threads=False).aggregate([("country", "first")])
    return pa.table({"user_id": first.column("user_id"), "country": first.column("country_first")})


def _events(purchases: pa.Table) -> pa.Table:
    invoices, items = purchases.column("invoice_id"), purchases.column("item_id")
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(invoices, items, "-"),
            "user_id": purchases.column("user_id"),
            "item_id": items,
            "action": pa.repeat(pa.scalar("purchase"), len(purchases)),
            "timestamp": purchases.column("timestamp"),
            "quantity": purchases.column("quantity"),
            "price_gbp": purchases.column("price_gbp"),
            "session_id": invoices,
        }
    )


def _queries(queries: pa.Table, purchases: pa.Table) -> pa.Table:
    """Return the queries with their invoice as `session_id`, at the time of that invoice."""
    invoice_ids = pc.list_element(pc.split_pattern(queries.column("query_id"), "-"), 0)
    rows = pc.index_in(invoice_ids, value_set=purchases.column("invoice_id"))
    index = queries.column_names.index("timestamp")
    times = pc.coalesce(purchases.column("timestamp").take(rows), queries.column("timestamp"))
    return queries.set_column(index, "timestamp", times).append_column("session_id", invoice_ids)
