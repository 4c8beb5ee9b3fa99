"""The flags of `python -m dataset.create`, and the settings that they make."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset.curate.conversations import read_agent
from dataset.curate.filters import LANGUAGES, PRESETS, FilterChoice, Filters
from dataset.curate.guards import check_split, read_exclusion
from dataset.curate.rules import rule_for
from dataset.curate.sampling import SAMPLING_MODES
from dataset.curate.server import split_addresses
from dataset.curate.settings import Settings
from dataset.prompts import DEFAULT_PROMPTS, LAYOUTS, PromptConfig
from dataset.sources import Location, Source, get_source
from dataset.sources.generic import read_column_map
from reward.settings import DEFAULT_SETTINGS, read_settings
from utils.command_line import Parser
from utils.run_manifest import checkpoint_of
from utils.sample import PROMPT_TYPES
from utils.training_file import read_sections

OF_TRAINING = {  # flag -> key of the training configuration
    "max_pixels": "train_dataset.max_pixels",
    "max_prompt_tokens": "train_dataset.max_length",
    "max_tokens": "gconfig.max_new_tokens",
    "temperature": "gconfig.temperature",
    "layout": "prompts.layout",
    "num_thinking_prompts": "prompts.num_thinking_prompts",
    "format_guidance": "prompts.format_guidance",
    "seed": "seed",
    "reward_config": "",  # the file itself
}
DEFAULTS = {item: field.default for item, field in Settings.__dataclass_fields__.items()}


def make_parser(description: str) -> argparse.ArgumentParser:
    """The command line; defaults come from `Settings`."""
    parser = Parser(
        prog="python -m dataset.create",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the sources and leave")
    _data_flags(parser.add_argument_group("data"))
    _model_flags(parser.add_argument_group("generation"))
    _rules_flags(parser.add_argument_group("selection (defaults per source: docs/curation.md)"))
    _filters_flags(parser.add_argument_group("filters before generation"))
    _work_flags(parser.add_argument_group("workers"))
    _output_flags(parser.add_argument_group("output"))
    return parser


def settings_from(args: argparse.Namespace, command: Sequence[str]) -> Settings:
    """Checked settings. Raises ``SourceError`` or ``ValueError`` naming flag, value got and values wanted."""
    for name in ("dataset_name", "model_name", "output_dir"):
        if getattr(args, name) is None:
            raise ValueError(f"--{name.replace('_', '-')} is required")
    if args.config:
        _take_from_training(args, command)
    agent = read_agent(args.config) if args.config else None
    source = get_source(args.dataset_name, read_column_map(args.column_map) if args.column_map else None)
    location = _location(source, args)
    check_split(source, location.split, args.allow_eval_split)
    overrides = {
        name: getattr(args, name)
        for name in ("min_gap", "min_reward", "max_reward", "min_variance", "keep_all")
    }
    filters = Filters(
        max_answer_chars=args.filter_max_answer_chars,
        answer_symbols=args.filter_answer_symbols,
        drop_answer_types=tuple(args.filter_answer_types),
        max_boxes=args.filter_max_boxes,
        max_box_area=args.filter_max_box_area,
        language=args.filter_language,
    )
    return Settings(
        source=source,
        location=location,
        output_dir=Path(args.output_dir),
        model_name=checkpoint_of(args.model_name),
        rule=rule_for(source.name, overrides),
        num_attempts=args.rollout_n,
        num_workers=args.num_workers,
        dataset_size=args.dataset_size,
        max_samples=args.max_samples,
        shard_size=args.shard_size,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        seed=args.seed,
        sampling=args.sampling,
        prompt_type=args.prompt_type,
        prompts=PromptConfig(
            args.layout,
            args.num_thinking_prompts,
            args.format_guidance,
            args.seed,
            tools=None if agent is None else agent.settings.tools,
        ),
        max_pixels=args.max_pixels,
        max_prompt_tokens=args.max_prompt_tokens,
        solved_threshold=args.solved_threshold,
        rewards=read_settings(args.reward_config) if args.reward_config else DEFAULT_SETTINGS,
        agent=agent,
        max_per_class=args.max_per_class,
        balance_by=args.balance_by,
        shuffle_buffer=args.shuffle_buffer,
        filters=FilterChoice(args.filter_preset, filters).resolve(),
        exclusion=read_exclusion(
            args.exclude, max_distance=args.exclude_distance, images_alone=args.exclude_images_alone
        ),
        incremental=args.incremental or args.to_parquet_only,
        measure=not args.to_parquet_only,
        device=args.device,
        executor=args.executor,
        ray_address=args.ray_address,
        gpus_per_worker=args.gpus_per_worker,
        server_addresses=split_addresses(args.server_addresses),
        server_arguments=tuple(args.server_arguments),
        concurrency=args.concurrency,
        request_timeout_seconds=args.request_timeout,
        command=("python", "-m", "dataset.create", *command),
    )


def _take_from_training(args: argparse.Namespace, command: Sequence[str]) -> None:
    """Set the flags of `OF_TRAINING` by the file `--config`. ValueError where one of them is given as well."""
    flags = {f"--{name.replace('_', '-')}": name for name in OF_TRAINING}
    given = sorted(flags.keys() & {word.partition("=")[0] for word in command})
    if given:
        raise ValueError(
            f"{given[0]}: --config {args.config} decides it; change it there, or leave --config out"
        )
    config = read_sections(args.config, ("train_dataset", "gconfig", "prompts", "seed"))
    for name, key in OF_TRAINING.items():
        section, _, item = key.partition(".")
        value = config.get(section, {}).get(item) if item else config.get(section)
        if isinstance(value, str) and "${" in value:
            raise ValueError(
                f"--config {args.config}: {key}={value!r} refers to another key; write the value"
            )
        if value is not None:  # null: as this command does by itself
            setattr(args, name, value)
    args.reward_config = args.config


def _location(source: Source, args: argparse.Namespace) -> Location:
    split, path = args.dataset_split or source.split, args.dataset_path
    data_files = tuple(args.data_files or ())
    if not data_files and split == source.split:
        # A local file is itself the data; a local folder may be a copy of the repository, or hold other files.
        copies = path is None or not Path(path).exists() or any(Path(path).glob(f) for f in source.data_files)
        data_files = source.data_files if copies else ()
    location = Location(
        path=source.path if path is None else path,
        split=split,
        config=args.dataset_config or source.config,
        data_files=data_files,
        image_root=args.image_root,
    )
    return location.with_default_image_root()


def _data_flags(group: argparse._ArgumentGroup) -> None:
    """Which rows."""
    add = group.add_argument
    add("--dataset-name", help="a source of --list")
    add("--dataset-path", help="local file or folder, or a name on the Hub (default: the source's)")
    add("--dataset-split", help="split (default: the source's)")
    add("--dataset-config", help="Hub configuration, such as a subject of mmmu or a stage of digits")
    add("--data-files", nargs="+", metavar="FILE", help="files or patterns within --dataset-path")
    add("--image-root", help="folder that relative image paths start from (default: the data's folder)")
    add("--column-map", metavar="YAML", help="columns of --dataset-name generic")
    add("--dataset-size", type=int, metavar="N", help="stop when N samples are kept (default: no limit)")
    add("--max-samples", type=int, metavar="N", help="look at N source rows at most (default: all)")
    add(
        "--shuffle-buffer",
        type=int,
        default=DEFAULTS["shuffle_buffer"],
        metavar="N",
        help="shuffle rows within a window of N, by --seed (default: source order)",
    )
    add("--allow-eval-split", action="store_true", help="curate a split on which results are reported")
    add(
        "--exclude",
        nargs="+",
        default=[],
        metavar="PATH",
        help="evaluation data: near-duplicates of its images and questions are rejected",
    )
    add(
        "--exclude-distance",
        type=int,
        default=4,
        metavar="BITS",
        help="images this close count as the same, of 64 bits (default: %(default)s)",
    )
    add(
        "--exclude-images-alone",
        action="store_true",
        help="reject an excluded image even under another question",
    )


def _model_flags(group: argparse._ArgumentGroup) -> None:
    """Which model answers, and how."""
    add = group.add_argument
    add(
        "--config",
        metavar="YAML",
        help="the configuration of the training that the data is for: limits, prompts, sampling, seed and rewards are "
        "its own, and none of their flags can be given beside it",
    )
    add("--model-name", help="checkpoint folder, folder of a finished run, or Hub name")
    add(
        "--rollout-n",
        type=int,
        default=DEFAULTS["num_attempts"],
        metavar="N",
        help="attempts per sample (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=DEFAULTS["max_tokens"],
        help="tokens of an answer at most (default: %(default)s)",
    )
    add(
        "--temperature",
        type=float,
        default=DEFAULTS["temperature"],
        help="of sampling (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=DEFAULTS["seed"],
        help="of sampling, prompts and shuffling (default: %(default)s)",
    )
    add(
        "--sampling",
        choices=SAMPLING_MODES,
        default=DEFAULTS["sampling"],
        help="seeded: a seed per attempt, so a run can be repeated exactly; grouped: one request per sample, faster; "
        "auto: seeded on CPU, grouped on GPU",
    )
    add("--prompt-type", choices=PROMPT_TYPES, help="answer-only or thinking prompt (default: the source's)")
    add(
        "--layout",
        choices=LAYOUTS,
        default=DEFAULT_PROMPTS.layout,
        help="place of the instruction, as prompts.layout of the training that the data is for (default: %(default)s)",
    )
    add(
        "--num-thinking-prompts",
        type=int,
        default=DEFAULT_PROMPTS.num_thinking_prompts,
        help="size of the pool of thinking prompts (default: %(default)s)",
    )
    add("--format-guidance", action="store_true", help="append the line on answer format to the prompt")
    add(
        "--max-pixels",
        type=int,
        default=DEFAULTS["max_pixels"],
        help="per image; use training's (default: %(default)s)",
    )
    add(
        "--max-prompt-tokens",
        type=int,
        default=DEFAULTS["max_prompt_tokens"],
        help="longer prompts are rejected (default: %(default)s)",
    )


def _rules_flags(group: argparse._ArgumentGroup) -> None:
    """Which samples are kept."""
    add = group.add_argument
    add("--min-reward", type=float, help="keep when the mean reward is above this")
    add("--max-reward", type=float, help="keep when the mean reward is below this")
    add("--min-gap", type=float, help="keep when Pass@N - Pass@1 is above this")
    add("--min-variance", type=float, help="keep when the variance of reward is at least this")
    add(
        "--solved-threshold",
        type=float,
        help="accuracy from which an attempt counts as solved, written into the samples' spec "
        "(default: the reward specification's)",
    )
    add(
        "--reward-config",
        metavar="YAML",
        help="the configuration of the training that the data is for: its section `reward` holds here too",
    )
    add("--keep-all", action="store_true", default=None, help="measure, drop nothing")
    add(
        "--balance-by",
        choices=("answer", "answer_type", "problem_type", "source"),
        default=DEFAULTS["balance_by"],
        help="what --max-per-class calls a class (default: %(default)s)",
    )
    add("--max-per-class", type=int, metavar="N", help="keep N samples of a class at most")


def _filters_flags(group: argparse._ArgumentGroup) -> None:
    """Which rows are not even tried."""
    add = group.add_argument
    add("--filter-preset", choices=tuple(PRESETS), help="V-Triune's filters for one kind of task")
    add("--filter-max-answer-chars", type=int, metavar="N", help="reject longer reference answers")
    add("--filter-answer-symbols", default="", metavar="CHARS", help="reject references that hold any")
    add("--filter-answer-types", nargs="+", default=[], metavar="TYPE", help="reject these answer types")
    add("--filter-max-boxes", type=int, metavar="N", help="reject references with more boxes")
    add(
        "--filter-max-box-area",
        type=float,
        metavar="SHARE",
        help="reject boxes above this share of the image",
    )
    add("--filter-language", choices=LANGUAGES, help="keep questions in this script")


def _work_flags(group: argparse._ArgumentGroup) -> None:
    """Who does the work."""
    add = group.add_argument
    add(
        "--num-workers",
        type=int,
        default=DEFAULTS["num_workers"],
        help="servers to start, one per GPU; on CPU one is enough (default: %(default)s)",
    )
    add(
        "--server-addresses",
        nargs="+",
        default=[],
        metavar="HOST:PORT",
        help="use these SGLang servers instead, a worker each",
    )
    add(
        "--server-arguments",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="...",
        help="the rest of the line goes to SGLang, e.g. --tp 2",
    )
    add(
        "--device",
        choices=("auto", "cuda", "cpu"),
        default=DEFAULTS["device"],
        help="where servers run (default: GPUs if there are any)",
    )
    add(
        "--gpus-per-worker",
        type=float,
        default=DEFAULTS["gpus_per_worker"],
        help="GPUs that Ray reserves for a worker (default: %(default)s)",
    )
    add(
        "--concurrency",
        type=int,
        default=DEFAULTS["concurrency"],
        help="samples in flight per worker (default: %(default)s)",
    )
    add(
        "--executor",
        choices=("auto", "ray", "local"),
        default=DEFAULTS["executor"],
        help="Ray actors, or one worker in this process (default: local for one CPU worker or one address)",
    )
    add("--ray-address", help="join this Ray cluster (default: RAY_ADDRESS, else a cluster of our own)")
    add(
        "--request-timeout",
        type=float,
        default=DEFAULTS["request_timeout_seconds"],
        metavar="SECONDS",
        help="for one request (default: %(default)s)",
    )


def _output_flags(group: argparse._ArgumentGroup) -> None:
    """Where it goes."""
    add = group.add_argument
    add("--output-dir", help="where the shards go")
    add(
        "--shard-size", type=int, default=DEFAULTS["shard_size"], help="rows per shard (default: %(default)s)"
    )
    add(
        "--incremental",
        action="store_true",
        help="continue the journal of an earlier run: nothing is lost, nothing measured twice",
    )
    add(
        "--to-parquet-only",
        action="store_true",
        help="measure nothing: select, write and report from the journal, e.g. under other thresholds",
    )
