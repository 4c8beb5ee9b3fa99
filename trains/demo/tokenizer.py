"""The demonstration's tokenizer: byte-level, with merges for the words of the project's prompts.

One token per byte makes the recipe's prompts 150 to 300 tokens long, and on two cores those tokens are most of the
cost of every step. Merges learned from the prompts alone bring them to a third. Every string still survives a
round trip, digits stay single tokens, and the special tokens keep the ids of `llavaonevision1_5.tiny`.
"""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dataset.prompts import ANSWER_PROMPT, FORMAT_GUIDANCE, SPATIAL_SUFFIX, THINKING_PROMPTS
from llavaonevision1_5.tiny import SPECIAL_IDS, byte_characters

VOCAB_SIZE = 640
FIRST_MERGE_ID = 256 + len(SPECIAL_IDS)


def learn_merges(
    texts: Iterable[str], num_merges: int = VOCAB_SIZE - FIRST_MERGE_ID
) -> list[tuple[str, str]]:
    """The first byte-pair merges of these texts, inside words only and never over a digit; the same on any machine."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _words()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges, initial_alphabet=byte_characters(), show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def build_word_tokenizer(
    corpus: Iterable[str], chat_template: str, *, model_max_length: int = 4096
) -> PreTrainedTokenizerFast:
    """A tokenizer of VOCAB_SIZE ids: 0 to 255 are the bytes, SPECIAL_IDS as in the tiny model, then the merges."""
    merges = learn_merges([*prompt_texts(), *corpus])
    vocab = {character: byte for byte, character in enumerate(byte_characters())} | SPECIAL_IDS
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_IDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
    )


def prompt_texts() -> list[str]:
    """What the tokenizer should be short on: the instructions and the frame of the chat template."""
    frame = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    return [*frame, ANSWER_PROMPT, *THINKING_PROMPTS, SPATIAL_SUFFIX, *FORMAT_GUIDANCE.values()]


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
