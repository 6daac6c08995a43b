"""The Complete Journey: a year of a grocer's loyal households, by the lines of their receipts.

Source: 84.51°, as `completejourney` of the data directory: a sample of 75,000 lines of 2017, CC0. Nobody
typed anything: **a shopping trip stands for a request without a query**, made when it is paid for, and what
it bought is relevant; the line on which most was spent is the item that the request led to. Lines of fuel, of
coupons themselves and of nothing paid are left out, and so are products that the sample never sells.

A line is the action "purchase" with `quantity`, `amount` (paid, dollars), `price` (of one piece) and
`coupon_discount` (dollars, 0 without a coupon). A trip is a `session_id`. A `brand` of an item is a
manufacturer within a category, as the private label makes everything; `label` says whether it is private.
Train until October, valid November, test December.
"""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.splits import TimeSplit
from training.datasets.tables import Dataset, canonical_types, sort_tables, timestamps_ms

_SPLIT = TimeSplit(
    valid_from_ms=int(datetime(2017, 11, 1, tzinfo=UTC).timestamp() * 1000),
    test_from_ms=int(datetime(2017, 12, 1, tzinfo=UTC).timestamp() * 1000),
)
_NO_PRODUCTS = pa.array(["FUEL", "COUPON", "MISCELLANEOUS"])
"""Departments whose lines are no products."""


def load(data_dir: Path) -> Dataset:
    """Read `completejourney` under the data directory into the canonical tables and check them.

    Raises `InvalidInput` if a file is missing or a table breaks the schema.
    """
    folder = data_dir / "completejourney"
    products = _read(folder / "products.parquet")
    lines = _lines(_read(folder / "transactions_sample.parquet"), products)
    dataset = Dataset(
        name="completejourney",
        items=_items(products, lines),
        users=_users(lines, _read(folder / "demographics.parquet")),
        events=_events(lines),
        queries=_trips(lines),
        queries_are_proxies=True,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    return canonical_types(pq.read_table(path))


def _lines(transactions: pa.Table, products: pa.Table) -> pa.Table:
    """Return the lines by which a product was sold, each with the key of its trip and its product."""
    kept = products.filter(pc.invert(pc.is_in(products.column("department"), _NO_PRODUCTS)))
    sold = pc.and_(
        pc.greater(transactions.column("quantity"), 0), pc.greater(transactions.column("sales_value"), 0)
    )
    known = pc.is_in(transactions.column("product_id"), kept.column("product_id").combine_chunks())
    return transactions.filter(pc.and_(sold, known))


def _items(products: pa.Table, lines: pa.Table) -> pa.Table:
    sold = pc.is_in(products.column("product_id"), lines.column("product_id").combine_chunks())
    products = products.filter(sold)
    parts = [pc.fill_null(products.column(name), "") for name in ("product_type", "package_size")]
    brand = pc.binary_join_element_wise(
        products.column("manufacturer_id"), pc.fill_null(products.column("product_category"), ""), " "
    )
    return pa.table(
        {
            "item_id": products.column("product_id"),
            "title": pc.utf8_trim_whitespace(pc.binary_join_element_wise(*parts, " ")),
            "brand": brand,
            "manufacturer": products.column("manufacturer_id"),
            "label": products.column("brand"),
            "department": products.column("department"),
            "category": products.column("product_category"),
            "type": products.column("product_type"),
        }
    )


def _users(lines: pa.Table, demographics: pa.Table) -> pa.Table:
    """Return every household that shops, with what is known of a third of them."""
    users = pa.table({"user_id": pc.unique(lines.column("household_id"))})
    return users.join(demographics.rename_columns({"household_id": "user_id"}), keys="user_id")


def _events(lines: pa.Table) -> pa.Table:
    amount, quantity = lines.column("sales_value"), lines.column("quantity")
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(
                lines.column("basket_id"), lines.column("product_id"), "-"
            ),
            "user_id": lines.column("household_id"),
            "item_id": lines.column("product_id"),
            "action": pa.repeat(pa.scalar("purchase"), len(lines)),
            "timestamp": lines.column("transaction_timestamp"),
            "quantity": quantity,
            "price": pc.divide(amount, quantity),
            "amount": amount,
            "coupon_discount": pc.abs(lines.column("coupon_disc")),
            "session_id": lines.column("basket_id"),
        }
    )


def _trips(lines: pa.Table) -> pa.Table:
    """Return each trip as a request without words that led to its dearest line."""
    dearest = lines.sort_by(
        [("basket_id", "ascending"), ("sales_value", "descending"), ("product_id", "ascending")]
    )
    trips = dearest.group_by("basket_id", use_threads=False).aggregate(
        [(name, "first") for name in ("transaction_timestamp", "household_id", "product_id")]
    )
    timestamps = trips.column("transaction_timestamp_first")
    found = pa.table(
        {
            "query_id": trips.column("basket_id"),
            "timestamp": timestamps,
            "user_id": trips.column("household_id_first"),
            "query": pa.array([""] * len(trips), pa.string()),
            "item_id": trips.column("product_id_first"),
            "session_id": trips.column("basket_id"),
        }
    )
    return found.append_column("split", _SPLIT.labels(timestamps_ms(found)))
