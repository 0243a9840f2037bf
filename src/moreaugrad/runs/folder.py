"""The directory of a run that keeps a folder of results for each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moreaugrad.files import is_temporary
from moreaugrad.runs.checksums import SUFFIX
from moreaugrad.runs.directory import CONFIG, RunDirectory

PAGE, RECORD = "index.html", "record.json"


class OutputFolder(RunDirectory):
    """Holds a configuration, perhaps `index.html`, and for each input a unit: the folder of its
    name, with a record and what belongs to it."""

    others = (PAGE,)

    def __init__(
        self,
        path: Path,
        *,
        command: str,
        named: Mapping[str, str],
        inputs: Sequence[str],
        config: str = CONFIG,
        record: str = RECORD,
    ) -> None:
        """inputs: the names of their folders. record: of the file that every such folder has."""
        super().__init__(path)
        self.command, self.named, self.config = command, named, config
        self._inputs, self._record = inputs, record
        self.units = (f"*/{self._stem}",)

    @property
    def _stem(self) -> str:
        return Path(self._record).stem

    def finish(self, name: str, files: Mapping[str, bytes]) -> None:
        """The results of an input: contents by names within its folder."""
        self.write(f"{name}/{self._stem}", {f"{name}/{file}": d for file, d in files.items()})

    def _admit(self, config: str, *, overwrite: bool) -> None:
        for folder in map(self.path.joinpath, self._inputs):
            if folder.exists() and not self._ours(folder):
                raise ValueError(
                    f"{folder}: expected no such folder, or one that holds results; it holds "
                    "something else: name another folder for the results"
                )
        super()._admit(config, overwrite=overwrite)

    def _ours(self, folder: Path) -> bool:
        """Whether it holds results, or nothing."""
        if not folder.is_dir():
            return False
        found = [path for path in folder.iterdir() if not is_temporary(path)]
        names = {path.name for path in found}
        return not found or bool(names & {self._record, f"{self._stem}{SUFFIX}"})
