"""The record that every part of the project shares: one prompt with its images and its reference answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PROMPT_TYPES = ("answer", "think")  # answer-only, thinking
SPATIAL_PROBLEM_TYPE = "spatial"  # a thinking prompt then asks for the boxes of the relevant objects
IMAGE_MARK = "<image>"  # stands in `problem` where an image belongs

ROW_FIELDS = (
    "id",
    "images",
    "problem",
    "answer",
    "problem_type",
    "answer_type",
    "source",
    "prompt_type",
    "spec",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of curated data, as the loader, the workflow, the rewards and curation see it.

    Example: ``Sample(id="digits-number/000017", images=({"bytes": b"...", "path": None},),
    problem="<image>Which digit is this?", answer=("7",), problem_type="digits", answer_type="number",
    source="digits-number", prompt_type="answer", spec=None)``
    """

    id: str  # unique in its data set, stable over rebuilds
    images: tuple[Any, ...]  # {"bytes", "path"} records, encoded bytes or PIL images; one per mark
    problem: str  # the question alone, with an IMAGE_MARK per image; no answer-format instruction
    answer: tuple[str, ...]  # at least one accepted answer; the best match counts
    problem_type: str  # subject, e.g. "math", "ocr", SPATIAL_PROBLEM_TYPE
    answer_type: str  # a key of reward.registry.ANSWER_TYPES: chooses the verifier
    source: str  # the data set it came from; metrics are reported per source
    prompt_type: str = "answer"  # one of PROMPT_TYPES: chooses the instruction
    spec: dict[str, Any] | None = None  # reward specification: verifier parameters and weights of the parts

    @classmethod
    def from_row(cls, row: "Mapping[str, Any] | Sample") -> "Sample":
        """The sample of a plain row; `spec` may be a JSON string, a dict or null. Unknown columns are
        ignored.

        Raises ``KeyError`` for a missing required column, ``ValueError`` for a `spec` that is not a JSON
        object.
        """
        if isinstance(row, Sample):
            return row
        return cls(
            id=row["id"],
            images=tuple(row["images"] or ()),
            problem=row["problem"],
            answer=tuple(row["answer"]),
            problem_type=row["problem_type"],
            answer_type=row["answer_type"],
            source=row["source"],
            prompt_type=row["prompt_type"],
            spec=parse_spec(row.get("spec"), row["id"]),
        )

    def to_row(self) -> dict[str, Any]:
        """A plain dict with ROW_FIELDS as keys, `answer` and `images` as lists and `spec` as JSON or None."""
        row = {name: getattr(self, name) for name in ROW_FIELDS}
        row["images"], row["answer"] = list(self.images), list(self.answer)
        row["spec"] = None if self.spec is None else json.dumps(self.spec, sort_keys=True)
        return row

    def with_prompt_type(self, prompt_type: str) -> "Sample":
        """The same sample under the other kind of prompt. Raises ``ValueError`` for an unknown kind."""
        if prompt_type not in PROMPT_TYPES:
            raise ValueError(f"prompt_type: got {prompt_type!r}, wanted one of {PROMPT_TYPES}")
        return replace(self, prompt_type=prompt_type)


def json_text(value: Any) -> str:
    """A cell as text: a string as it is, a number, boolean, list or object as JSON. 7 -> "7", True -> "true"."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def parse_spec(spec: str | Mapping[str, Any] | None, sample_id: str = "?") -> dict[str, Any] | None:
    """The reward specification as a dict; None when the row has none. Raises ``ValueError`` naming the
    sample.
    """
    if spec is None or spec == "":
        return None
    if isinstance(spec, Mapping):
        return dict(spec)
    try:
        parsed = json.loads(spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample {sample_id}: spec is not JSON ({error}): {spec!r}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"sample {sample_id}: spec must be a JSON object, got {spec!r}")
    return parsed
