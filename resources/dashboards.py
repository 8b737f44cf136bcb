"""Folders of HTML pages, published by one rename and served over http.

Belongs here: where dashboards live and how a new version replaces the old one. Does not belong
here: what is on the pages (mechinterp_assets/dashboards).
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

KEEP_SECONDS = 600.0
# Where Dagster's webserver has the dashboards under `mechinterp ui`, whatever its port: metadata
# stays for good, so it names no port.
DASHBOARDS_PATH = "/dashboards"


class DashboardsResource(dg.ConfigurableResource["DashboardsResource"]):
    """Named folders under `root`; `<name>` is a link to the current version.

    Attributes:
        root: folder of the folders.
        base_url: where they are served, as seen from Dagster's pages.
    """

    root: str
    base_url: str = DASHBOARDS_PATH

    def url(self, name: str, page: str = "index.html") -> str:
        """Address of a page of a folder, for metadata: relative to the Dagster that shows it."""
        return f"{self.base_url}/{name}/{page}"

    def has(self, name: str) -> bool:
        """Whether a folder of this name was published."""
        return (Path(self.root) / name / "index.html").is_file()

    def pages(self, name: str, below: str) -> set[str]:
        """Names without .html of the pages in a subfolder of a published folder."""
        return {path.stem for path in (Path(self.root) / name / below).glob("*.html")}

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """A private folder that becomes `<root>/<name>` when the block ends without an error.

        Readers see the old pages or the new ones, never a mixture. What a failed or killed writer
        left is removed by a later one, as are versions before the one that was just replaced.
        """
        root = Path(self.root)
        versions = root / ".versions" / name
        versions.mkdir(parents=True, exist_ok=True)
        folder = versions / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        link = root / f".{uuid.uuid4().hex}.link"
        link.symlink_to(folder.relative_to(root))
        os.replace(link, root / name)
        for old in sorted(versions.iterdir())[:-2]:
            # A young folder may belong to a writer at work in another process.
            if time.time() - old.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
