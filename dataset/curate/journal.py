"""The append-only journal of a curation run: each row's outcome, generations and images as one checksummed record.

A record is ``magic | body length (u64) | BLAKE2b-128 of the body | body``; a body is a JSON header followed by blobs. A
record is in the journal whole or not at all: a process killed while writing leaves a torn tail, which the next opening
cuts off. The file is locked, so two runs cannot write to one journal.
"""

import fcntl
import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"CURJ"
FRAME = struct.Struct("<4sQ16s")
LENGTH = struct.Struct("<Q")
FSYNC_SECONDS = 5.0  # a killed process loses nothing; a power cut loses at most this much


class JournalError(RuntimeError):
    """The journal cannot be used as it is: locked, damaged, or made with other settings."""


@dataclass(frozen=True, slots=True)
class Record:
    """One outcome: a JSON header and the encoded images that belong to it."""

    header: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def encode_record(record: Record) -> bytes:
    """The framed bytes of a record."""
    header = json.dumps(record.header, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    parts = [LENGTH.pack(len(header)), header]
    for blob in record.blobs:
        parts += [LENGTH.pack(len(blob)), blob]
    body = b"".join(parts)
    return FRAME.pack(MAGIC, len(body), hashlib.blake2b(body, digest_size=16).digest()) + body


def decode_body(body: bytes) -> Record:
    """The record of a body whose checksum was found right."""
    pieces, start = [], 0
    while start < len(body):
        (length,) = LENGTH.unpack_from(body, start)
        start += LENGTH.size
        pieces.append(body[start : start + length])
        start += length
    return Record(json.loads(pieces[0].decode("utf-8", "surrogatepass")), tuple(pieces[1:]))


class Journal:
    """An open journal. `records()` reads what is there; `append()` adds; `read(offset)` fetches one again."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or create. Raises ``JournalError`` when another run holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.num_torn_bytes = 0
        self._file: BinaryIO = path.open("rb" if read_only else "a+b")
        self._synced = time.monotonic()
        if not read_only:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise JournalError(f"{path} is in use by another run") from error

    def records(self, *, with_blobs: bool = False) -> Iterator[tuple[int, Record]]:
        """(offset, record) of every whole record, in writing order; a torn tail is cut off (once, at the end).

        Raises ``JournalError`` for damage that is not a torn tail: whole records follow it, so cutting would lose them.
        """
        size = os.fstat(self._file.fileno()).st_size
        offset = 0
        while offset < size:
            body = self._body(offset, size)
            if body is None:
                self._cut(offset, size)
                return
            record = decode_body(body)
            yield offset, record if with_blobs else Record(record.header)
            offset += FRAME.size + len(body)

    def read(self, offset: int) -> Record:
        """The record at an offset. Raises ``JournalError`` when there is none."""
        body = self._body(offset, os.fstat(self._file.fileno()).st_size)
        if body is None:
            raise JournalError(f"{self.path}: no whole record at byte {offset}")
        return decode_body(body)

    def append(self, record: Record) -> int:
        """Add a record and hand it to the operating system before returning its offset."""
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(encode_record(record))
        self._file.flush()
        if time.monotonic() - self._synced > FSYNC_SECONDS:
            self.sync()
        return offset

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Write everything to the disk, close, and give up the lock."""
        if not self._file.closed:
            if self._file.writable():
                self.sync()
            self._file.close()

    def _body(self, offset: int, size: int) -> bytes | None:
        if offset + FRAME.size > size:
            return None
        self._file.seek(offset)
        magic, length, digest = FRAME.unpack(self._file.read(FRAME.size))
        if magic != MAGIC or offset + FRAME.size + length > size:
            return None
        body = self._file.read(length)
        return body if hashlib.blake2b(body, digest_size=16).digest() == digest else None

    def _cut(self, offset: int, size: int) -> None:
        if self._whole_record_after(offset, size):
            raise JournalError(
                f"{self.path} is damaged at byte {offset} and has whole records after it; "
                "restore the file, or curate into another --output-dir"
            )
        self.num_torn_bytes = size - offset
        if self._file.writable():
            self._file.truncate(offset)

    def _whole_record_after(self, offset: int, size: int) -> bool:
        step, position = 1 << 20, offset + 1
        while position < size:
            self._file.seek(position)
            chunk = self._file.read(step + len(MAGIC) - 1)
            found = chunk.find(MAGIC)
            while found >= 0:
                if self._body(position + found, size) is not None:
                    return True
                found = chunk.find(MAGIC, found + 1)
            position += step
        return False


def check_same_settings(path: Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ``JournalError`` naming every setting in which a journal and this run differ."""
    differences = [
        f"{name}: the journal has {recorded.get(name)!r}, this run {wanted.get(name)!r}"
        for name in sorted({*recorded, *wanted})
        if recorded.get(name) != wanted.get(name)
    ]
    if differences:
        raise JournalError(
            f"--incremental cannot continue {path} with other settings:\n  "
            + "\n  ".join(differences)
            + "\nuse the same ones or another --output-dir"
        )


def images_of(record: Record) -> Sequence[dict[str, Any]]:
    """The record's images as the curated schema wants them."""
    return [{"bytes": blob, "path": None} for blob in record.blobs]
