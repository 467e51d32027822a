"""Results kept on disk as they come, so that an interrupted run can go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from u2net_human_plugin.errors import DataError

from ..files import write_text


class ResultsFile:
    """A JSON-lines file: first what the results belong to, then one result a line.

    Args:
        path: the file; a folder that exists.
        belongs_to: everything the results depend on. With ``resume``, results in a file
            that begins with the very same are found in :attr:`done`, by their key "row".

    Raises:
        DataError: with ``resume``, the file's results belong to something else.
    """

    def __init__(self, path: Path, belongs_to: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.done: dict[int, dict[str, Any]] = {}
        first = json.dumps(belongs_to, sort_keys=True)
        if resume and path.is_file():
            head, *lines = path.read_text("utf-8").splitlines() or [""]
            if head != first:
                raise DataError(
                    f"{path}: holds results of other models, pictures or settings; leave out "
                    "--resume to replace them, or name another folder."
                )
            # A killed run may have left half a line at the end.
            results = (json.loads(line) for line in lines if line.endswith("}"))
            self.done = {result["row"]: result for result in results}
        kept = [first, *(json.dumps(result) for result in self.done.values())]
        write_text(path, "".join(line + "\n" for line in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def add(self, result: dict[str, Any]) -> None:
        """Keep ``result``; it is in the file when this returns."""
        self._file.write(json.dumps(result) + "\n")
        self._file.flush()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
