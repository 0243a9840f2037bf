"""The directory of a run that keeps a folder of results for each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moreaugrad.files.atomic import is_temporary
from moreaugrad.files.checksums import SUFFIX
from moreaugrad.report import Page, page_files
from moreaugrad.runs.cases import INPUTS
from moreaugrad.runs.directory import CONFIG, RunDirectory

PAGE, RECORD = "index.html", "record.json"
PAGE_UNIT = "index"


class OutputFolder(RunDirectory):
    """Holds a configuration, perhaps a page (`index.html`, with `index_files/` where it is large),
    and for each input a unit: the folder of its name in `inputs/`, with a record and what belongs
    to it. There no name of an image meets that of another file."""

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
        """inputs: their folders, as of a `Case`. record: the file that every such folder
        has."""
        super().__init__(path)
        self.command, self.named, self.config = command, named, config
        self._inputs, self._record = inputs, record
        self.units = (f"{INPUTS}/*/{self._stem}", PAGE_UNIT)

    @property
    def _stem(self) -> str:
        return Path(self._record).stem

    def finish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """The results of an input: contents by names within its folder."""
        self.write(f"{folder}/{self._stem}", {f"{folder}/{file}": d for file, d in files.items()})

    def write_page(self, page: Page) -> None:
        self.write(PAGE_UNIT, page_files(page, PAGE))

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
