"""An output layer that is tied to the input embeddings: one matrix, which files may hold once or twice.

Published checkpoints with `tie_word_embeddings: true` hold it once. What a training writes holds `lm_head.weight` as
well, because FSDP's state dict lists both names. Standard library only, as `shards.py`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from llavaonevision1_5.shards import INDEX, read_header, read_json, tensors

HEAD = "lm_head.weight"
CHUNK_BYTES = 1 << 24


def is_tied(config: dict[str, Any]) -> bool:
    """Whether a model with this `config.json` reads its output layer out of the embeddings."""
    text = config.get("text_config") or {}
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))


def is_copy(folder: str | os.PathLike) -> bool:
    """Whether `lm_head.weight` of a folder equals its embeddings, byte for byte. Errors as of `shards.tensors`."""
    folder, found = Path(folder), tensors(folder)
    names = [name for name in found if name.endswith("embed_tokens.weight")]
    if HEAD not in found or len(names) != 1:
        return False
    head, embeddings = found[HEAD], found[names[0]]
    if (head.shape, head.dtype) != (embeddings.shape, embeddings.dtype):
        return False
    with (folder / head.file).open("rb") as one, (folder / embeddings.file).open("rb") as other:
        size, other_size = _seek(one, HEAD), _seek(other, names[0])
        while size == other_size and size > 0:
            length = min(size, CHUNK_BYTES)
            if one.read(length) != other.read(length):
                return False
            size, other_size = size - length, other_size - length
    return size == other_size


def copy_without_head(source: Path, target: Path) -> None:
    """Copy a safetensors file or an index of such files, all but `lm_head.weight`."""
    if source.name == INDEX:
        index = read_json(source)
        index["weight_map"].pop(HEAD, None)
        target.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return
    read_header(source)  # a broken file is named
    with source.open("rb") as file, target.open("wb") as sink:
        header, start = _header(file)
        metadata = {name: entry for name, entry in header.items() if name == "__metadata__"}
        kept = [name for name in header if name not in (HEAD, "__metadata__")]
        kept.sort(key=lambda name: header[name]["data_offsets"])
        position, entries = 0, dict(metadata)
        for name in kept:
            first, last = header[name]["data_offsets"]
            entries[name] = {**header[name], "data_offsets": [position, position + last - first]}
            position += last - first
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight, as the format asks
        sink.write(len(text).to_bytes(8, "little") + text)
        for name in kept:
            first, last = header[name]["data_offsets"]
            file.seek(start + first)
            for begin in range(first, last, CHUNK_BYTES):
                sink.write(file.read(min(CHUNK_BYTES, last - begin)))


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of an open file, and where its data begins."""
    length = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(length)), 8 + length


def _seek(file: BinaryIO, name: str) -> int:
    """Go to the data of a tensor; how many bytes it has."""
    header, start = _header(file)
    first, last = header[name]["data_offsets"]
    file.seek(start + first)
    return last - first
