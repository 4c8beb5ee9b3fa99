"""Published checkpoints to folders that train here, and back.

`prepare` makes a folder that loads through this package without touching the published one; `export` puts
trained weights beside the original configuration and code. Standard library alone (`shards.py` reads the files).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llavaonevision1_5 import MODEL_TYPE, shims, tied
from llavaonevision1_5.shards import read_json, tensors

MODELING = "modeling_llavaonevision1_5.py"
CLASS_TOKEN_FAULT = (
    f"its {MODELING} is not this project's: the published one drops class tokens at the wrong places from the second "
    "image on, which moves log-probabilities by up to 4 nats; with one image or none it is right. Prompts with several "
    "images want a server of this project (python -m utils.evaluate)"
)
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
SPECIAL_TOKENS = {
    "<|image_pad|>": "image_token_id",
    "<|video_pad|>": "video_token_id",
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
}
# The values of the published configuration classes, for files that leave them out.
_MEDIA_DEFAULTS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
_TEXT_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "vocab_size",
)
_VISION_DEFAULTS = {
    "depth": 24,
    "embed_dim": 1024,
    "num_heads": 16,
    "intermediate_size": 4096,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
}


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern))


def tensor_shapes(folder: str | os.PathLike) -> dict[str, list[int]]:
    """Shape of every tensor in the folder's safetensors files, by name; errors as of `shards.tensors`."""
    return {name: tensor.shape for name, tensor in tensors(folder).items()}


def expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Name and shape of every weight that the model of this `config.json` has.

    Raises ValueError naming the sizes that the file lacks or that are no positive integers.
    """
    _check_sizes(config)
    text = config["text_config"]
    hidden, ffn, head_dim = text["hidden_size"], text["intermediate_size"], text.get("head_dim", 128)
    queries, keys = text["num_attention_heads"] * head_dim, text["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": [text["vocab_size"], hidden], "model.norm.weight": [hidden]}
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = [text["vocab_size"], hidden]
    layer = {
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "self_attn.q_norm": [head_dim],
        "self_attn.k_norm": [head_dim],
        "mlp.gate_proj": [ffn, hidden],
        "mlp.up_proj": [ffn, hidden],
        "mlp.down_proj": [hidden, ffn],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    for index in range(text["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}

    vision = {**_VISION_DEFAULTS, **config["vision_config"]}
    width, inner, patch = vision["embed_dim"], vision["intermediate_size"], vision["patch_size"]
    merged = width * vision["spatial_merge_size"] ** 2
    shapes |= {
        "visual.class_embedding": [width],
        "visual.class_pos_emb": [1, width // vision["num_heads"] // 2],
        "visual.patch_embed.proj.weight": [width, vision["in_channels"], patch, patch],
    }
    affine = {"visual.pre_layernorm": [width], "visual.merger.ln_q": [width]}
    affine |= {"visual.merger.mlp.0": [merged, merged], "visual.merger.mlp.2": [hidden, merged]}
    for index in range(vision["depth"]):
        block = f"visual.blocks.{index}"
        affine |= {f"{block}.norm1": [width], f"{block}.norm2": [width]}
        affine |= {f"{block}.attn.qkv": [3 * width, width], f"{block}.attn.proj": [width, width]}
        affine |= {f"{block}.mlp.fc1": [inner, width], f"{block}.mlp.fc2": [width, inner]}
    for name, shape in affine.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _check_sizes(config: dict[str, Any]) -> None:
    sections = {
        "text_config": dict.fromkeys(_TEXT_SIZES) | {"head_dim": 128},
        "vision_config": _VISION_DEFAULTS,
    }
    wrong = []
    for section, defaults in sections.items():
        given = config.get(section)
        if not isinstance(given, dict):
            wrong.append(f"{section} is {given!r}, wanted an object")
            continue
        for name, value in (defaults | given).items():
            if name in defaults and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                wrong.append(f"{section}.{name} is {value!r}, wanted a positive integer")
    if wrong:
        raise ValueError(f"config.json is incomplete: {'; '.join(wrong)}")


def _differences(wanted: dict[str, list[int]], got: dict[str, list[int]]) -> list[str]:
    problems = [f"missing weight {name} {wanted[name]}" for name in sorted(wanted.keys() - got.keys())]
    problems += [f"unexpected weight {name} {got[name]}" for name in sorted(got.keys() - wanted.keys())]
    problems += [
        f"weight {name} has shape {got[name]}, wanted {wanted[name]}"
        for name in sorted(wanted.keys() & got.keys())
        if got[name] != wanted[name]
    ]
    return problems


def _raise_if_any(
    problems: list[str], folder: Path, what: str = "is not a LLaVA-OneVision-1.5 checkpoint that can be used"
) -> None:
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:8])
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{folder} {what}:\n{shown}{more}")


def verify(folder: str | os.PathLike, *, name: str | os.PathLike | None = None) -> None:
    """Check a folder: model type, names and shapes of all weights, patch size, special tokens, chat template.

    Raises ValueError with every problem found (the first eight in words), FileNotFoundError for a missing file.
    Messages speak of `name`, where it is given, in place of `folder`.
    """
    try:
        _verify(Path(folder))
    except (FileNotFoundError, ValueError) as error:
        if name is None:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(str(error).replace(str(folder), str(name))) from error


def _verify(folder: Path) -> None:
    config = read_json(folder / "config.json")
    problems = []
    if config.get("model_type") != MODEL_TYPE:
        problems.append(f"config.json has model_type {config.get('model_type')!r}, wanted {MODEL_TYPE!r}")
        _raise_if_any(problems, folder)
    try:
        wanted_shapes = expected_shapes(config)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    problems += _differences(wanted_shapes, tensor_shapes(folder))

    preprocessor = read_json(folder / "preprocessor_config.json")
    vision = {**_VISION_DEFAULTS, **config["vision_config"]}
    for name, wanted in [
        ("patch_size", vision["patch_size"]),
        ("merge_size", vision["spatial_merge_size"]),
        ("temporal_patch_size", 1),  # two frames per patch would give 1176 columns instead of 588
    ]:
        if preprocessor.get(name) != wanted:
            problems.append(f"preprocessor_config.json has {name} {preprocessor.get(name)}, wanted {wanted}")

    _raise_if_any([*problems, *token_problems(folder, config)], folder)


def token_problems(folder: Path, config: dict[str, Any]) -> list[str]:
    """What is wrong with a folder's special tokens and chat template, those of Qwen-VL being the same."""
    tokenizer = read_json(folder / "tokenizer.json")
    ids = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    problems = []
    for token, field in SPECIAL_TOKENS.items():
        wanted = config.get(field, _MEDIA_DEFAULTS[field])
        if ids.get(token) != wanted:
            problems.append(
                f"the tokenizer has {token} at id {ids.get(token)}, config.json's {field} is {wanted}"
            )
    template = _chat_template(folder)
    if template is not None and "<|image_pad|>" not in template:
        problems.append("the chat template writes no <|image_pad|>: images would be dropped")
    return problems


def _chat_template(folder: Path) -> str | None:
    """The folder's chat template from any of its three places; None when it has none (ours is used then)."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).exists() and (template := read_json(folder / name).get("chat_template")):
            return str(template)
    return None


@contextmanager
def _fresh_folder(target: str | os.PathLike, *sources: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when all went well and is gone otherwise."""
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; name a new folder")
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; give a new folder or remove it first")
    for source in sources:
        if source.resolve() in (target.resolve(), *target.resolve().parents):
            raise ValueError(f"{target} lies inside {source}; name a folder outside of it")
    missing = [path for path in (target, *target.parents) if not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder.chmod(0o755)
        yield folder
        folder.rename(target)  # over an empty folder too
    except BaseException:
        shutil.rmtree(folder)
        for path in missing[1:]:
            path.rmdir()
        raise


def _copy_all_but_weights(source: Path, target: Path, *, with_code: bool) -> None:
    weights = set(_weight_files(source))
    for path in sorted(source.iterdir()):
        if path.is_file() and path not in weights and (with_code or path.suffix != ".py"):
            shutil.copyfile(path, target / path.name)


def prepare(source: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Make `target` from a published checkpoint: weights linked, small files copied, code replaced by shims.

    `source` is not changed and must stay where it is. The result is verified. Raises FileExistsError if
    `target` holds anything.
    """
    source = Path(source)
    read_json(source / "config.json")
    with _fresh_folder(target, source) as folder:
        _copy_all_but_weights(source, folder, with_code=False)
        for path in _weight_files(source):
            (folder / path.name).symlink_to(path.resolve())
        verify(folder, name=source)
        shims.write(folder)
    return Path(target)


def export(trained: str | os.PathLike, target: str | os.PathLike, *, original: str | os.PathLike) -> Path:
    """Put trained weights beside the original checkpoint's configuration, code, tokenizer and templates.

    The result loads wherever the published checkpoint does. Weights are copied, so `trained` may be removed. An output
    layer that the original ties to the embeddings is left out where the original leaves it out (`tied.py`).
    Raises ValueError unless both have the same weights in name and shape; nothing is left behind then.
    """
    trained, original = Path(trained), Path(original)
    wanted, got = tensor_shapes(original), tensor_shapes(trained)
    copy = shutil.copyfile
    if (tied.HEAD in wanted) != (tied.HEAD in got) and tied.is_tied(read_json(original / "config.json")):
        if tied.HEAD in got:
            copy = tied.copy_without_head
            if not tied.is_copy(trained):
                raise ValueError(
                    f"{trained}: {tied.HEAD} differs from the embeddings, and {original} ties the two; it would be lost"
                )
        wanted.pop(tied.HEAD, None)
        got.pop(tied.HEAD, None)
    _raise_if_any(_differences(wanted, got), trained, f"has other weights than {original}")
    with _fresh_folder(target, trained, original) as folder:
        _copy_all_but_weights(original, folder, with_code=True)
        for path in _weight_files(trained):
            copy(path, folder / path.name)
    return Path(target)


def has_published_code(folder: str | os.PathLike) -> bool:
    """True where the folder brings modeling code of its own instead of this package's."""
    code = Path(folder) / MODELING
    return code.is_file() and code.read_text(encoding="utf-8") != shims.FILES[MODELING]
