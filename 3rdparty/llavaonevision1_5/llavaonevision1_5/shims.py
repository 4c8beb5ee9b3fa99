"""The small files that make a checkpoint folder load through this package.

With `trust_remote_code` (AReaL always sets it, SGLang gets it by flag) transformers follows `auto_map` in the
folder's JSON files to Python files beside them. The published ones do not run on transformers 5; those written
here only import our classes. Standard library alone: launchers and export tools use it too.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from llavaonevision1_5 import ARCHITECTURE

CONFIG = "LLaVAOneVision1_5_Config"
PROCESSOR = "LLaVAOneVision1_5_Processor"

FILES = {
    "configuration_llavaonevision1_5.py": f"from llavaonevision1_5.configuration import {CONFIG}  # noqa: F401\n",
    "modeling_llavaonevision1_5.py": f"from llavaonevision1_5.modeling import {ARCHITECTURE}  # noqa: F401\n",
    "processing_llavaonevision1_5.py": f"from llavaonevision1_5.processing import {PROCESSOR}  # noqa: F401\n",
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": f"processing_llavaonevision1_5.{PROCESSOR}"}
AUTO_MAP = {
    "AutoConfig": f"configuration_llavaonevision1_5.{CONFIG}",
    "AutoModel": f"modeling_llavaonevision1_5.{ARCHITECTURE}",
    "AutoModelForCausalLM": f"modeling_llavaonevision1_5.{ARCHITECTURE}",
    "AutoModelForImageTextToText": f"modeling_llavaonevision1_5.{ARCHITECTURE}",
    **PROCESSOR_AUTO_MAP,
}
TRUST_VARIABLE = "TRUST_CHECKPOINT_CODE"
MAX_JSON_BYTES = 1 << 20
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def _replace(path: Path, text: str) -> None:
    """Write through a temporary file: readers never see half of it, and a symbolic link is not followed."""
    if path.is_file() and not path.is_symlink() and path.read_text() == text:
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _update_json(path: Path, changes: dict[str, Any]) -> None:
    content = json.loads(path.read_text())
    _replace(path, json.dumps({**content, **changes}, indent=2, ensure_ascii=False) + "\n")


def check_code(path: str | os.PathLike) -> bool:
    """True where loading a checkpoint with `trust_remote_code` runs nothing but the files written here.

    Raises ValueError when its JSON files lead to other code; `TRUST_CHECKPOINT_CODE=1` in the environment allows that.
    A name on the Hub cannot be looked into and is treated as such code.
    """
    if os.environ.get(TRUST_VARIABLE) == "1":
        return True
    folder = Path(path)
    foreign = [str(path)] if not folder.is_dir() else _foreign_code(folder)
    if foreign:
        raise ValueError(
            f"{path} would run code that is not this project's ({', '.join(foreign)}): make a folder of it with "
            f"`python -m utils.checkpoint prepare {path} TARGET`, or set {TRUST_VARIABLE}=1 if you trust it"
        )
    return True


def _foreign_code(folder: Path) -> list[str]:
    """What the `auto_map`s of a folder lead to beside the files of `write`."""
    found = []
    for file in sorted(folder.glob("*.json")):
        if file.stat().st_size > MAX_JSON_BYTES:
            continue  # vocabularies
        content = json.loads(file.read_text())
        auto_map = content.get("auto_map") if isinstance(content, dict) else None
        values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map] if auto_map else []
        for value in values:
            for target in value if isinstance(value, list | tuple) else [value]:
                name = f"{str(target).partition('.')[0]}.py"
                code = folder / name
                if target is not None and not (
                    name in FILES and code.is_file() and code.read_text() == FILES[name]
                ):
                    found.append(f"{file.name}: {target}")
    return found


def write(folder: str | os.PathLike) -> list[Path]:
    """Write the shim files into `folder` and point its JSON files at them.

    Touches `config.json`, `processor_config.json`, `preprocessor_config.json` and `tokenizer_config.json` as
    far as they exist; symbolic links are replaced by files, never written through. A second call changes
    nothing. Returns the shim files.
    """
    folder = Path(folder)
    written = []
    for name, text in FILES.items():
        _replace(folder / name, text)
        written.append(folder / name)
    if (folder / "config.json").exists():
        _update_json(folder / "config.json", {"auto_map": AUTO_MAP, "architectures": [ARCHITECTURE]})
    for name in PROCESSOR_FILES:
        if (folder / name).exists():
            _update_json(folder / name, {"auto_map": PROCESSOR_AUTO_MAP, "processor_class": PROCESSOR})
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.exists() and "processor_class" in json.loads(tokenizer_config.read_text()):
        _update_json(tokenizer_config, {"processor_class": PROCESSOR})
    return written
