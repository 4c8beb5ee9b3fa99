"""A look at curated data before anything is trained on it.

``python -m dataset.inspect PATH`` prints counts by source and type, prompt lengths and schema problems, and
with ``--html FILE`` writes a self-contained page of samples with their images. The status is 1 when problems
were found.
"""

import html
import sys
from argparse import Namespace
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.encode import image_limits, prompt_length
from dataset.images import ImageError, decode_image, resize_to_limits, to_base64_png
from dataset.lengths import Fault, bad_rows, largest, row_fault, shrunk
from dataset.prompts import DEFAULT_PROMPTS, LAYOUTS, PromptConfig, render_problem
from dataset.references import Reference, costly_reference
from dataset.shards import RowReader, open_rows
from llavaonevision1_5.shims import check_code
from reward.settings import read_settings
from utils.columns import parse_columns
from utils.command_line import Parser, check_model, check_output
from utils.sample import Sample
from utils.training_file import read_sections

NUM_BINS = 10
BAR_WIDTH = 40
PAGE_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}article{border-top:1px solid #ccc;padding:1em 0}"
    "pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}img{max-height:16em;margin-right:.5em}"
    "table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:left}"
)


@dataclass
class Inspection:
    """What `inspect_rows` found."""

    num_rows: int = 0
    counts: Counter = field(default_factory=Counter)  # (source, answer_type, prompt_type) -> rows
    lengths: list[int] = field(default_factory=list)  # prompt tokens, or characters without a processor
    unit: str = "characters"
    pixels: list[int] = field(default_factory=list)  # of each sound row's largest image, 0 without images
    max_pixels: int | None = None  # beyond which images are shrunk
    problems: list[str] = field(default_factory=list)  # "file, row N (id ...): column ...: ..."


def inspect_rows(
    reader: RowReader,
    processor: Any = None,
    *,
    decode: bool = False,
    prompts: PromptConfig = DEFAULT_PROMPTS,
    max_pixels: int | None = None,
) -> Inspection:
    """Count, measure and check every row; with `decode` every image is decoded as well, which takes a
    while. Images of more than `max_pixels`, or of more than the processor takes, are counted.
    """
    found = Inspection(unit="characters" if processor is None else "tokens", max_pixels=max_pixels)
    if processor is not None:
        found.max_pixels = image_limits(processor, max_pixels).max_pixels
    seen: dict[str, int] = {}
    faults: list[Fault] = []
    references: list[tuple[int, Any, Reference]] = []

    def measured(sample: Sample, sizes: Any) -> int:
        found.pixels[-1] = largest(sizes)
        return _length(sample, sizes, processor, prompts)

    for position, row in enumerate(reader.iter_rows()):
        found.pixels.append(0)
        length, fault = row_fault(row, measured)
        problems = [] if fault is None else [fault]
        if fault is None and (reference := costly_reference(row)) is not None:
            references.append((position, row["id"], reference))
        if row.get("id") in seen:
            problems.append(f"column 'id': {row['id']!r} is also row {seen[row['id']]}")
        seen.setdefault(row.get("id"), position)
        found.num_rows += 1
        if not problems:
            found.counts[(row["source"], row["answer_type"], row["prompt_type"])] += 1
            found.lengths.append(length)
            if decode:
                problems += _image_problems(Sample.from_row(row))
        faults += [(position, row.get("id"), text) for text in problems]
    found.problems = [str(row) for _, row in bad_rows(reader, faults, references)]
    return found


def render_text(found: Inspection, name: str) -> str:
    """The report for a terminal."""
    lines = [f"{name}: {found.num_rows} rows", "", f"{'rows':>8}  source / answer type / prompt type"]
    lines += [f"{count:>8}  {' / '.join(key)}" for key, count in sorted(found.counts.items())]
    if found.lengths:
        lines += [
            "",
            f"prompt length in {found.unit}: median {int(np.median(found.lengths))}, max {max(found.lengths)}",
        ]
        heights, edges = np.histogram(found.lengths, bins=NUM_BINS)
        for height, low, high in zip(heights, edges[:-1], edges[1:], strict=True):
            bar = "#" * round(BAR_WIDTH * height / heights.max())
            lines.append(f"{low:8.0f} to {high:6.0f} {height:>8} {bar}")
    lines += _images(np.array(found.pixels), found.max_pixels)
    lines += ["", f"{len(found.problems)} problems", *found.problems[:50]]
    if len(found.problems) > 50:
        lines.append(f"... and {len(found.problems) - 50} more")
    return "\n".join(lines)


def _images(pixels: np.ndarray, max_pixels: int | None) -> list[str]:
    shown = pixels[pixels > 0]
    if not len(shown):
        return []
    lines = ["", f"pixels of an image: median {int(np.median(shown))}, max {shown.max()}"]
    sentence = None if max_pixels is None else shrunk(pixels, max_pixels)
    return lines if sentence is None else [*lines, sentence]


def render_html(
    found: Inspection,
    reader: RowReader,
    num_samples: int,
    seed: int = 0,
    prompts: PromptConfig = DEFAULT_PROMPTS,
) -> str:
    """A page with the report and a random choice of samples: images, the prompt as the model gets it, the
    answer.
    """
    chosen = np.random.default_rng(seed).permutation(len(reader))[:num_samples]
    articles = [_article(reader.read(int(row)), prompts) for row in sorted(chosen)]
    title = html.escape(reader.name)
    report = html.escape(render_text(found, reader.name))
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{title}</title><style>{PAGE_STYLE}</style></head>"
        f"<body><h1>{title}</h1><pre>{report}</pre>{''.join(articles)}</body></html>\n"
    )


def _article(row: dict[str, Any], prompts: PromptConfig) -> str:
    try:
        sample = Sample.from_row(row)
        prompt = render_problem(sample, prompts)
        images = "".join(_image_tag(image, sample.id) for image in sample.images)
    except (KeyError, TypeError, ValueError) as error:
        name, reason = html.escape(str(row.get("id"))), html.escape(str(error))
        return f"<article><h3>{name}</h3><p>unusable: {reason}</p></article>"
    facts = f"{sample.source}, {sample.problem_type}, {sample.answer_type}, {sample.prompt_type}"
    answers = "".join(f"<pre>{html.escape(answer)}</pre>" for answer in sample.answer)
    spec = "" if sample.spec is None else f"<p>spec: <code>{html.escape(str(sample.spec))}</code></p>"
    return (
        f"<article><h3>{html.escape(sample.id)}</h3><p>{html.escape(facts)}</p>{images}"
        f"<pre>{html.escape(prompt)}</pre><p>answer:</p>{answers}{spec}</article>"
    )


def _image_tag(image: Any, sample_id: str) -> str:
    try:
        shown = resize_to_limits(decode_image(image, sample_id), factor=1, min_pixels=1, max_pixels=640 * 480)
    except ImageError as error:
        return f"<p>{html.escape(str(error))}</p>"
    return f"<img alt='' src='data:image/png;base64,{to_base64_png(shown)}'>"


def _image_problems(sample: Sample) -> list[str]:
    problems = []
    for image in sample.images:
        try:
            decode_image(image, sample.id)
        except ImageError as error:
            problems.append(f"column 'images': {error}")
    return problems


def _length(sample: Sample, sizes: Any, processor: Any, prompts: PromptConfig) -> int:
    if processor is None:
        return len(render_problem(sample, prompts))
    return prompt_length(processor, sample, sizes, prompts=prompts)


def _take_over(args: Namespace) -> None:
    """What `args` leave open, out of the configuration; its verifiers are registered."""
    read_settings(args.config)
    sections = read_sections(args.config, ("train_dataset", "actor", "prompts"))
    data, folder = sections.get("train_dataset") or {}, (sections.get("actor") or {}).get("path")
    args.columns = args.columns or data.get("columns") or []
    args.max_pixels = args.max_pixels or data.get("max_pixels")
    args.layout = args.layout or (sections.get("prompts") or {}).get("layout")
    if args.processor is None and (Path(str(folder)) / "config.json").is_file():
        args.processor = folder


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m dataset.inspect",
        description="Counts, lengths, schema problems and sample pages of curated data.",
    )
    parser.add_argument("path", help="shard, directory, glob or Hub name")
    parser.add_argument(
        "--processor", help="checkpoint whose processor counts tokens (default: count characters)"
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode every image and report the corrupt ones"
    )
    parser.add_argument("--html", help="write a page of samples here")
    parser.add_argument(
        "--num-samples", type=int, default=24, help="samples on the page (default: %(default)s)"
    )
    parser.add_argument(
        "--columns", nargs="*", default=[], metavar="FIELD=COLUMN", help="names and constants of foreign data"
    )
    parser.add_argument(
        "--max-pixels", type=int, help="count larger images, as train_dataset.max_pixels shrinks them"
    )
    parser.add_argument("--layout", choices=LAYOUTS, help=f"of prompts (default: {DEFAULT_PROMPTS.layout})")
    parser.add_argument(
        "--config",
        metavar="YAML",
        help="the configuration of the training that the data is for: columns, checkpoint, pixels, layout, verifiers "
        "are its own unless given here",
    )
    args = parser.parse_args(argv)
    processor = None
    try:
        if args.config:
            _take_over(args)
        prompts = PromptConfig(layout=args.layout or DEFAULT_PROMPTS.layout)
        if args.html:
            check_output(Path(args.html).parent, "--html")
        if args.processor:
            check_model(args.processor, "--processor")
            trusted = check_code(args.processor)
            from transformers import AutoProcessor

            processor = AutoProcessor.from_pretrained(args.processor, trust_remote_code=trusted)
        columns = args.columns if isinstance(args.columns, dict) else parse_columns(args.columns)
        reader = open_rows(args.path, columns=columns)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    found = inspect_rows(reader, processor, decode=args.decode, prompts=prompts, max_pixels=args.max_pixels)
    print(render_text(found, reader.name))
    if args.html:
        Path(args.html).parent.mkdir(parents=True, exist_ok=True)
        page = render_html(found, reader, args.num_samples, prompts=prompts)
        Path(args.html).write_text(page, encoding="utf-8")
        print(f"page of samples: {args.html}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
