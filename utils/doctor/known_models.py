"""Sizes of published models, so that a run can be planned before its checkpoint is there.

The values are those of the models' `config.json`; a checkpoint that is there is always read instead.
"""

from __future__ import annotations

import re
from typing import Any


def config_of(path: str) -> tuple[str, dict[str, Any]] | None:
    """(name, what matters of its `config.json`) of the published model that a path's words name; None for another.

    >>> config_of("./pretrained/LLaVA-OneVision-1.5-8B-Instruct")[0]
    'LLaVA-OneVision-1.5-8B'
    >>> config_of("runs/llavaov15-4b-stage1/trial0")[0]
    'LLaVA-OneVision-1.5-4B'
    """
    if DEMO_PATH.search(path.lower()):
        return DEMO, CONFIGS[DEMO]
    for family, pattern in FAMILIES.items():
        found = re.search(pattern + r"[-_](\d+)b(?![a-z0-9])", path.lower())
        name = f"{family}-{found[1]}B" if found else None
        if name in CONFIGS:
            return name, CONFIGS[name]
    return None


def _text(layers: int, hidden: int, ffn: int, heads: tuple[int, int], vocab: int = 151_936) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
    }


def _llava(hidden: int, ffn: int) -> dict[str, Any]:
    text = _text(36, hidden, ffn, (32, 8)) | {"head_dim": 128}
    return {"model_type": "llavaonevision1_5", "text_config": text, "vision_config": {}}


def _qwen(kind: str, text: dict[str, int], *, tied: bool, vision: dict[str, int]) -> dict[str, Any]:
    return {"model_type": kind, "text_config": text, "vision_config": vision, "tie_word_embeddings": tied}


# The readers' defaults (model_sizes.py) are the towers of the larger models.
_SMALL_QWEN3_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
DEMO = "the demo's model"
DEMO_PATH = re.compile(r"(^|/)(tiny-(llavaov15|zoom)|digits-stage1)(?![a-z0-9])")
CONFIGS: dict[str, dict[str, Any]] = {
    DEMO: {
        "model_type": "llavaonevision1_5",
        "text_config": _text(4, 128, 384, (4, 2), 640) | {"head_dim": 32},
        "vision_config": {"depth": 3, "embed_dim": 96, "hidden_size": 96, "intermediate_size": 384},
    },
    "LLaVA-OneVision-1.5-4B": _llava(2560, 9728),
    "LLaVA-OneVision-1.5-8B": _llava(4096, 12288),
    "Qwen2-VL-2B": _qwen("qwen2_vl", _text(28, 1536, 8960, (12, 2)), tied=True, vision={}),
    "Qwen2-VL-7B": _qwen("qwen2_vl", _text(28, 3584, 18944, (28, 4), 152_064), tied=False, vision={}),
    "Qwen2.5-VL-3B": _qwen("qwen2_5_vl", _text(36, 2048, 11008, (16, 2)), tied=True, vision={}),
    "Qwen2.5-VL-7B": _qwen("qwen2_5_vl", _text(28, 3584, 18944, (28, 4), 152_064), tied=False, vision={}),
    "Qwen3-VL-2B": _qwen(
        "qwen3_vl", _text(28, 2048, 6144, (16, 8)) | {"head_dim": 128}, tied=True, vision=_SMALL_QWEN3_TOWER
    ),
    "Qwen3-VL-4B": _qwen(
        "qwen3_vl", _text(36, 2560, 9728, (32, 8)) | {"head_dim": 128}, tied=True, vision=_SMALL_QWEN3_TOWER
    ),
    "Qwen3-VL-8B": _qwen(
        "qwen3_vl", _text(36, 4096, 12288, (32, 8)) | {"head_dim": 128}, tied=False, vision={}
    ),
}
FAMILIES = {
    "LLaVA-OneVision-1.5": r"llava[-_]?(?:ov|onevision)[-_]?1\.?5",
    "Qwen2-VL": r"qwen2[-_]?vl",
    "Qwen2.5-VL": r"qwen2\.?5[-_]?vl",
    "Qwen3-VL": r"qwen3[-_]?vl",
}
