"""LLaVA-OneVision-1.5 for transformers 5.3.0, AReaL 1.0.4 and SGLang 0.5.10.post1, none of which knows it.

| File | What it is |
|---|---|
| `configuration.py`, `vision.py`, `attention.py`, `modeling.py` | the model for transformers: RICE ViT, merger, Qwen3 |
| `processing.py` | image processor, chat template, expansion of image marks |
| `freezing.py` | freeze the vision tower or the projector |
| `shims.py` | the files that make a checkpoint folder load through this package |
| `checkpoint.py` | published checkpoint to training folder (`prepare`), and back (`export`); `verify` |
| `areal.py` | registration in AReaL |
| `sglang_model/`, `sglang_processor/` | SGLang's external model and multimodal processor |
| `tiny.py` | a random checkpoint of a few million parameters in the published layout |

This module needs the standard library alone, so that a launcher can ask for `sglang_environment()`.
"""

from __future__ import annotations

MODEL_TYPE = "llavaonevision1_5"
QWEN_VL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # other model types that train and are served here
ARCHITECTURE = "LLaVAOneVision1_5_ForConditionalGeneration"
FEATURE_CACHE_MEGABYTES = "256"  # 90 images of 512 x 512 pixels at hidden 4096 in bfloat16


def sglang_environment() -> dict[str, str]:
    """Environment variables with which an SGLang server knows the model and its processor.

    Image features are kept, so that the rollouts of a group encode their image once. SGLang keys them by image alone;
    the models registered here (`sglang_model/`) forget them with every update of weights.
    """
    return {
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "llavaonevision1_5.sglang_model",
        "SGLANG_EXTERNAL_MM_MODEL_ARCH": ARCHITECTURE,
        "SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE": "llavaonevision1_5.sglang_processor",
        "SGLANG_VLM_CACHE_SIZE_MB": FEATURE_CACHE_MEGABYTES,
    }


def register() -> None:
    """Make transformers' Auto classes know the model without remote code; safe to call again.

    Folders prepared by `shims.write` need no registration: their `auto_map` leads here.
    """
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    from llavaonevision1_5.configuration import LLaVAOneVision1_5_Config
    from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
    from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor

    AutoConfig.register(MODEL_TYPE, LLaVAOneVision1_5_Config, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        auto_class.register(
            LLaVAOneVision1_5_Config, LLaVAOneVision1_5_ForConditionalGeneration, exist_ok=True
        )
    AutoProcessor.register(LLaVAOneVision1_5_Config, LLaVAOneVision1_5_Processor, exist_ok=True)
