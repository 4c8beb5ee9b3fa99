"""Images on their way to the servers: one file per image, named in each request of a group.

A request that carries its image costs the trainer's client and the server a few milliseconds per megabyte, sixteen
times for the rollouts of one prompt. A path costs nothing, and the folder of a run is shared with the servers anyway.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path


class ImageFiles:
    """A folder for the images of the groups in generation; emptied at the start, for a killed run leaves some."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @asynccontextmanager
    async def placed(self, images: Sequence[str]) -> AsyncIterator[list[str]]:
        """Paths of PNG files that hold these images, given as base64; they are there within the block."""
        paths = [self.folder / f"{uuid.uuid4().hex}.png" for _ in images]
        try:
            await asyncio.to_thread(_write, paths, images)  # the folder may be a slow, shared one
            yield [str(path) for path in paths]
        finally:
            for path in paths:
                path.unlink(missing_ok=True)


def _write(paths: Sequence[Path], images: Sequence[str]) -> None:
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(base64.b64decode(image))
