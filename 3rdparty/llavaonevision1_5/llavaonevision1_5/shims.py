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
