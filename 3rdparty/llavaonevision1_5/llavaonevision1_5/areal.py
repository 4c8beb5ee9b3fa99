"""Registration of the model in AReaL 1.0.4. The only file here that imports areal."""

from __future__ import annotations

import llavaonevision1_5


def register_with_areal() -> None:
    """Make AReaL's engines treat the model as a vision model; call it in every process that builds one.

    AReaL decides by `model_type` in a list whether to load a processor and an image-text-to-text model. Modules
    that imported the predicate keep using the same list object. Safe to call again.
    """
    from areal.engine.core.model import VALID_VISION_MODELS

    llavaonevision1_5.register()
    if llavaonevision1_5.MODEL_TYPE not in VALID_VISION_MODELS:
        VALID_VISION_MODELS.append(llavaonevision1_5.MODEL_TYPE)
