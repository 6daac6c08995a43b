"""Online Retail II with what was sent back: the purchases of `online_retail`, and cancellations as returns.

An invoice whose number starts with a C is a cancellation: its lines are the action "return" on what it names,
at its time. Lines of customers, or of items, that `online_retail` does not know are left out. The queries are
the same **proxies made from the bought title**.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import FieldViolation, InvalidInput
from training.datasets import online_retail, schema
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables

RETURN = "return"
_COLUMNS = ["Invoice", "StockCode", "Quantity", "Price", "InvoiceDate", "Customer ID"]


def load(data_dir: Path) -> Dataset:
    """Read `online_retail` under the data directory with its cancellations, and check the tables.

    Raises `InvalidInput` as `online_retail` does, also where the invoices' lines are missing.
    """
    bought = online_retail.load(data_dir)
    returned = _returned(data_dir / "online_retail" / "online_retail_2009_2010.parquet", bought)
    events = pa.concat_tables([bought.events, returned.select(bought.events.column_names)])
    dataset = Dataset(
        name="retail_returns",
        items=bought.items,
        users=bought.users,
        events=events,
        queries=bought.queries,
        queries_are_proxies=True,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _returned(path: Path, bought: Dataset) -> pa.Table:
    """Return the cancelled lines as events, one for each item of a cancellation."""
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    lines = pq.read_table(path, columns=_COLUMNS)
    lines = lines.filter(
        pc.and_(pc.starts_with(lines.column("Invoice"), "C"), pc.is_valid(lines.column("Customer ID")))
    )
    lines = lines.append_column("user_id", lines.column("Customer ID").cast(pa.int64()).cast(pa.string()))
    for name, known in (("user_id", bought.users["user_id"]), ("StockCode", bought.items["item_id"])):
        lines = lines.filter(pc.is_in(lines.column(name), known.combine_chunks()))
    kept = lines.group_by(["Invoice", "StockCode", "user_id"], use_threads=False).aggregate(
        [("InvoiceDate", "min"), ("Quantity", "sum"), ("Price", "max")]
    )
    moments = pc.strptime(kept.column("InvoiceDate_min"), "%Y-%m-%d %H:%M:%S", "ms").cast(TIMESTAMP)
    types = {name: bought.events.schema.field(name).type for name in ("quantity", "price_gbp")}
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(kept.column("Invoice"), kept.column("StockCode"), "-"),
            "user_id": kept.column("user_id"),
            "item_id": kept.column("StockCode"),
            "action": pa.repeat(pa.scalar(RETURN), len(kept)),
            "timestamp": moments,
            "quantity": pc.negate(kept.column("Quantity_sum")).cast(types["quantity"]),
            "price_gbp": kept.column("Price_max").cast(types["price_gbp"]),
            "session_id": kept.column("Invoice"),
        }
    )
