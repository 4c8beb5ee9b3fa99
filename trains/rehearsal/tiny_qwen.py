"""Random checkpoints of the Qwen-VL models, a tenth of a million parameters each, with the byte-level tokenizer."""

from pathlib import Path

import torch
import transformers

from llavaonevision1_5.tiny import SPECIAL_IDS, VOCAB_SIZE, build_tokenizer

HIDDEN, LAYERS = 64, 2
CONSTANT = 0  # the channel that holds the same value at every token: see `never_media`
VISION = {
    "qwen2_vl": {  # in_chans is how the published file says it, and what SGLang reads
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": HIDDEN,
        "num_heads": 2,
        "in_chans": 3,
    },
    "qwen2_5_vl": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
    "qwen3_vl": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    },
}
CLASSES = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
FAMILIES = list(CLASSES)


def build_model(family: str, *, max_position_embeddings: int = 4096):
    """A random model of a tenth of a million parameters that knows its positions, and writes no media tokens."""
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    if family == "qwen3_vl":
        rope |= {"mrope_interleaved": True, "mrope_section": [4, 2, 2]}
    tied = family != "qwen2_vl"  # as published: 3B and Qwen3-VL-4B are, Qwen2-VL-7B is not
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": max_position_embeddings,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_IDS["<|im_end|>"],
        "pad_token_id": SPECIAL_IDS["<|endoftext|>"],
    }
    config = getattr(transformers, f"{CLASSES[family]}Config")(
        text_config=text,
        vision_config=VISION[family],
        image_token_id=SPECIAL_IDS["<|image_pad|>"],
        video_token_id=SPECIAL_IDS["<|video_pad|>"],
        vision_start_token_id=SPECIAL_IDS["<|vision_start|>"],
        vision_end_token_id=SPECIAL_IDS["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{CLASSES[family]}ForConditionalGeneration")(config).float().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the default 0.02 hides where a token stands behind what it is
                torch.nn.init.normal_(parameter, std=1.5 * parameter.flatten(1).shape[1] ** -0.5)
    never_media(model)
    return model


@torch.no_grad()
def never_media(model) -> None:
    """Make media tokens as improbable as a trained model does: one channel is 1 at every token, because nothing
    writes to it, and the head reads it for them with a large negative weight.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and "language_model" in name:
            parameter[CONSTANT] = 0
        if "merger" in name and parameter.shape[0] == HIDDEN:  # the projector's last layer
            parameter[CONSTANT] = float(name.endswith("bias") and "deepstack" not in name)
    for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        table[:, CONSTANT] = 1
        table[[SPECIAL_IDS[t] for t in SPECIAL_IDS if "vision" in t or "pad" in t], CONSTANT] = -1000
    if not model.config.tie_word_embeddings:
        model.get_input_embeddings().weight[:, CONSTANT] = 1


def build_processor(family: str):
    """The family's own processor with a byte-level tokenizer."""
    image = transformers.Qwen2VLImageProcessorFast(
        patch_size=16 if family == "qwen3_vl" else 14, size={"shortest_edge": 56**2, "longest_edge": 224**2}
    )
    videos = (
        transformers.Qwen3VLVideoProcessor if family == "qwen3_vl" else transformers.Qwen2VLVideoProcessor
    )
    tokenizer = build_tokenizer()
    return getattr(transformers, f"{CLASSES[family]}Processor")(
        image_processor=image,
        tokenizer=tokenizer,
        video_processor=videos(),
        chat_template=tokenizer.chat_template,
    )


def build_checkpoint(family: str, path: Path) -> Path:
    build_model(family).save_pretrained(path)
    build_processor(family).save_pretrained(path)
    return path
