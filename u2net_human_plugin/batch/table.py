"""The table of a batch: ``cutouts.parquet`` in the destination, one row for each picture.

While a batch runs, its rows are written beside the table every few seconds, each time to a file
of their own, so that who is killed has lost but the last ones; :meth:`Table.collect` joins them.
"""

from __future__ import annotations

import io
import time
import uuid
from typing import TYPE_CHECKING, Any

from u2net_human_plugin.errors import DataError

from .storage import UNFINISHED, Folder

if TYPE_CHECKING:
    import pyarrow

NAME = "cutouts.parquet"
#: Hidden, as is UNFINISHED: no picture's folder has that name.
ROWS = ".rows"


def schema() -> pyarrow.Schema:
    """The columns; a missing ``error`` means that ``output`` was written."""
    import pyarrow as pa

    fields = {
        "folder": pa.string(),  # SOURCE, or of a glob the part before its first wildcard
        "source": pa.string(),  # relative to it
        "output": pa.string(),  # relative to DEST
        "sha256": pa.string(),  # of the weights
        "settings": pa.string(),  # what else the result depends on, JSON
        "width": pa.int32(),  # pixels, upright
        "height": pa.int32(),
        "share": pa.float32(),  # of the picture that is people, 0…1
        "people": pa.int32(),  # who touch are one
        "seconds": pa.float32(),  # reading and writing included
        "error": pa.string(),
    }
    return pa.schema(list(fields.items()))


class Table:
    """The rows of a destination."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Write rows beside the table."""
        if not rows:
            return
        name = f"{ROWS}/{time.time_ns():020d}-{uuid.uuid4().hex}.parquet"
        self.folder.write(name, _content(from_rows(rows)))

    def collect(self) -> pyarrow.Table:
        """Join the table with the rows beside it; return it, sorted by source.

        Of a source's rows the last one stays. What killed processes left unfinished is removed.

        Raises:
            DataError: the table is damaged, or a stranger's.
        """
        import pyarrow as pa

        self.folder.remove(UNFINISHED)
        beside = self.folder.names(ROWS)
        rows = pa.concat_tables([self.read(), *(self._read(name) for name in beside)])
        if not beside:
            return rows
        rows = rows.append_column("number", pa.array(range(len(rows)), pa.int64()))
        last = rows.group_by("source").aggregate([("number", "max")])["number_max"]
        rows = rows.take(last).drop_columns(["number"]).sort_by("source").combine_chunks()
        self.folder.write(NAME, _content(rows))
        self.folder.remove(ROWS)
        self.folder.remove(UNFINISHED)
        return rows

    def read(self) -> pyarrow.Table:
        """The table without the rows beside it; empty if there is none."""
        if not self.folder.files.exists(f"{self.folder.path}/{NAME}"):
            return from_rows([])
        return self._read(NAME)

    def _read(self, name: str) -> pyarrow.Table:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.read_table(io.BytesIO(self.folder.read(name)), schema=schema())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.folder.path}/{name}: is no table of this command's ({error}). Move it away."
            ) from None


def from_rows(rows: list[dict[str, Any]]) -> pyarrow.Table:
    """Rows of the table; columns that are not given are empty."""
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema())


def _content(rows: pyarrow.Table) -> bytes:
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(rows, file)
    return file.getvalue()
