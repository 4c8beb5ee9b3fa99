"""Secrets out of what is written down: values of keys that name one, and passwords in addresses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
_NAME = re.compile(
    r"(?:^|[._-]|(?<=[a-z])(?=[A-Z]))(?i:api_?key|key|token|secret|password|passwd|credentials?)$"
)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]++@")


def masked(value: Any, name: str = "") -> Any:
    """A copy of plain data in which texts under a name such as `api_key`, `hf_token` or `password` are `***`.

    Numbers stay: `stop_token` may be one. In any text, `user:password@` of an address goes as well.
    """
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    if isinstance(value, str) and value:
        return MASK if _NAME.search(name) else _IN_ADDRESS.sub(f"{MASK}@", value)
    return value


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Command-line words with the values of `key=value`, `--key=value` and `--key value` masked in the same way."""
    words, secret = [], False
    for word in arguments:
        key, equals, value = word.partition("=")
        if secret and not word.startswith("-"):
            words.append(MASK)
        else:
            words.append(f"{key}={masked(value, key)}" if equals else masked(word))
        secret = not equals and word.startswith("--") and _NAME.search(word) is not None
    return words
