"""Guards against training on what is measured: evaluation splits, and near-duplicates of an exclusion list.

An exclusion list is made from evaluation data (parquet, JSONL, JSON, TSV or a folder of them): every image becomes a
64-bit perceptual hash, every question a fingerprint. A sample is a near-duplicate when its question matches and, where
it has images, one of them lies within `max_distance` bits of an excluded one; or, with `images_alone`, when an image
does.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.images import ImageError, decode_image
from dataset.sources.base import Source, SourceError
from dataset.sources.reading import local_files, read_file
from utils.sample import IMAGE_MARK, Sample

HASH_SIDE = 8  # 8 x 8 low frequencies: 64 bits
PIXEL_SIDE = 32
BANDS = 8  # bytes of a hash
QUESTION_COLUMNS = ("problem", "question", "query", "caption", "q_text")


def check_split(source: Source, split: str, allow_eval_split: bool) -> None:
    """Raises ``SourceError`` for a split on which results are reported, unless it is explicitly allowed."""
    if split in source.eval_splits and not allow_eval_split:
        usable = (
            f"use --dataset-split {source.split}"
            if source.split not in source.eval_splits
            else "it has no other"
        )
        raise SourceError(
            f"source {source.name!r}: split {split!r} is an evaluation split, and training on it would make reported "
            f"results worthless; {usable}, or pass --allow-eval-split when you know what you do"
        )


def perceptual_hash(image: Image.Image) -> int:
    """A 64-bit hash of what the image looks like (DCT of its 32 x 32 grey version, sign against the median).

    Near-identical images (re-encoded, resized, slightly brighter) differ in few bits.
    """
    from scipy.fft import dctn

    grey = np.asarray(
        image.convert("L").resize((PIXEL_SIDE, PIXEL_SIDE), Image.Resampling.LANCZOS), dtype=np.float64
    )
    low = dctn(grey, norm="ortho")[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])  # the constant term is brightness and says nothing about content
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def question_fingerprint(text: str) -> str:
    """The same for questions that differ in case, white space, punctuation or image marks only."""
    text = unicodedata.normalize("NFKC", text.replace(IMAGE_MARK, " ")).casefold()
    return hashlib.blake2b(" ".join(re.findall(r"\w+", text)).encode(), digest_size=12).hexdigest()


@dataclass
class Exclusion:
    """Hashes of data that must not be trained on."""

    max_distance: int = 4  # bits, 0 to 7: exact by the band index
    images_alone: bool = False  # reject a known image even under another question
    image_hashes: set[int] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    _bands: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance < BANDS:
            # Two hashes at most 7 bits apart agree in at least one of 8 bytes, so the index misses nothing.
            raise ValueError(f"--exclude-distance {self.max_distance}, wanted 0 to {BANDS - 1}")

    def add(self, images: Iterable[Any], question: str) -> None:
        """Exclude one evaluation row; unreadable images are ignored, its question still counts."""
        if question.strip():
            self.questions.add(question_fingerprint(question))
        for image in images:
            try:
                value = perceptual_hash(decode_image(image))
            except ImageError:
                continue
            if value not in self.image_hashes:
                self.image_hashes.add(value)
                for band in range(BANDS):
                    self._bands[band, (value >> (8 * band)) & 255].append(value)

    def has_image(self, image: Image.Image) -> bool:
        """Whether an excluded image lies within `max_distance` bits."""
        if not self.image_hashes:
            return False
        value = perceptual_hash(image)
        near = (
            candidate
            for band in range(BANDS)
            for candidate in self._bands.get((band, (value >> (8 * band)) & 255), ())
        )
        return any((value ^ candidate).bit_count() <= self.max_distance for candidate in near)

    def reason(self, sample: Sample) -> str | None:
        """`duplicate:image` or `duplicate:question`, or None. Corrupt images are left for the encoder to report."""
        if not self.image_hashes and not self.questions:
            return None
        same_question = question_fingerprint(sample.problem) in self.questions
        if not sample.images:
            return "duplicate:question" if same_question else None
        if not same_question and not self.images_alone:
            return None
        for image in sample.images:
            try:
                if self.has_image(decode_image(image, sample.id)):
                    return "duplicate:image"
            except ImageError:
                continue
        return None


def read_exclusion(paths: Iterable[str], *, max_distance: int = 4, images_alone: bool = False) -> Exclusion:
    """The exclusion list of evaluation files. Raises ``SourceError`` when a path is missing or holds neither kind."""
    exclusion = Exclusion(max_distance=max_distance, images_alone=images_alone)
    for text in paths:
        path = Path(text)
        if not path.exists():
            raise SourceError(f"--exclude {path}: no such file or folder")
        before = len(exclusion.image_hashes) + len(exclusion.questions)
        files = [path] if path.is_file() else _all_files(path)
        for file in files:
            for row in read_file(file):
                exclusion.add(_row_images(row), _row_question(row))
        if len(exclusion.image_hashes) + len(exclusion.questions) == before:
            raise SourceError(
                f"--exclude {path}: found neither images nor a column of {', '.join(QUESTION_COLUMNS)}"
            )
    return exclusion


def _all_files(path: Path) -> list[Path]:
    patterns = [f"**/*{suffix}" for suffix in (".parquet", ".jsonl", ".json", ".tsv")]
    found = [
        file
        for pattern in patterns
        if any(path.glob(pattern))
        for file in local_files(path, "", None, [pattern])
    ]
    if not found:
        raise SourceError(f"--exclude {path}: no parquet, JSONL, JSON or TSV file in it")
    return found


def _row_images(row: Mapping[str, Any]) -> list[Any]:
    values = [value for name, value in row.items() if name.startswith(("image", "decoded_image")) and value]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [item for item in flat if isinstance(item, Mapping | bytes)]


def _row_question(row: Mapping[str, Any]) -> str:
    return next((str(row[name]) for name in QUESTION_COLUMNS if row.get(name)), "")
