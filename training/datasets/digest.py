"""The digest of a dataset: equal tables, equal digest."""

import hashlib

import pyarrow as pa

from training.datasets.tables import Dataset


def digest_of(dataset: Dataset) -> str:
    """Return the sha256 of the name and the four tables, names and types of their columns included."""
    digest = hashlib.sha256(dataset.name.encode())
    for name, table in sorted(dataset.tables().items()):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(name.encode())
        digest.update(sink.getvalue())
    return digest.hexdigest()
