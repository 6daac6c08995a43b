"""Which events an LMDB user store has recorded: the newest ids, the oldest forgotten first."""

import hashlib
from collections.abc import Iterable

import lmdb

OWN = b"\xff"
"""What names of tables begin with, and no user's key does: those are UTF-8, in which no byte is 255."""

_KNOWN, _ORDER = OWN + b"event-ids", OWN + b"event-order"

TABLES = 2

_DIGEST_BYTES = 16
_NUMBER_BYTES = 8
_FORGOTTEN_AT_ONCE = 10_000
"""At least, beyond as many as came in: what a smaller limit leaves over goes in steps."""


class LmdbEventIds:
    """The newest `most` event ids, as BLAKE2b digests of 16 bytes, and the order in which they came.

    Opening makes the tables, where there are none, and so waits for other writers.
    """

    def __init__(self, environment: lmdb.Environment, most: int) -> None:
        self._most = most
        self._known = environment.open_db(_KNOWN)
        self._order = environment.open_db(_ORDER)

    def add_new(self, transaction: lmdb.Transaction, event_ids: Iterable[str]) -> set[str]:
        """Take the ids down and return those that were not known."""
        number = self._last_number(transaction)
        new = set()
        for event_id in event_ids:
            digest = hashlib.blake2b(event_id.encode(), digest_size=_DIGEST_BYTES).digest()
            if transaction.put(digest, b"", overwrite=False, db=self._known):
                number += 1
                transaction.put(number.to_bytes(_NUMBER_BYTES), digest, append=True, db=self._order)
                new.add(event_id)
        self._forget(transaction, len(new) + _FORGOTTEN_AT_ONCE)
        return new

    def _last_number(self, transaction: lmdb.Transaction) -> int:
        with transaction.cursor(db=self._order) as cursor:
            return int.from_bytes(cursor.key()) if cursor.last() else 0

    def _forget(self, transaction: lmdb.Transaction, at_most: int) -> None:
        surplus = transaction.stat(self._known)["entries"] - self._most
        with transaction.cursor(db=self._order) as cursor:
            for _ in range(min(surplus, at_most)):
                cursor.first()
                transaction.delete(cursor.value(), db=self._known)
                cursor.delete()
