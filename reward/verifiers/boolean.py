"""boolean: whole tokens yes/no/true/false, alone also y/n/t/f.

Both sides, neither, a negation or a hedge score 0.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from reward.extract import unwrap
from reward.types import Verdict, Verifier

MAX_CHARS = 4_000

_POLARITY = {"yes": True, "true": True, "no": False, "false": False}
_ALONE = _POLARITY | {"y": True, "t": True, "n": False, "f": False}
_TOKEN = re.compile(r"\w+(?:['’]\w+)?")
_LEAD = {
    "the",
    "my",
    "final",
    "correct",
    "answer",
    "is",
    "so",
    "thus",
    "hence",
    "therefore",
    "a",
    "it",
    "it's",
    "statement",
}
_NEGATIONS = {"not", "never", "neither", "nor", "cannot", "hardly", "barely", "without", "non"}
_HEDGES = {
    "maybe", "perhaps", "possibly", "probably", "might", "could", "unsure", "unknown", "uncertain", "undetermined",
    "unclear", "either", "or", "if", "unless", "whether", "partly", "partially", "sometimes", "idk",
}  # fmt: skip
_IDIOMS = {
    "doubt",
    "idea",
    "clue",
    "answer",
    "one",
    "longer",
    "matter",
    "problem",
    "question",
    "way",
    "comment",
    "worries",
}
_MAX_TOKENS = 64


def polarity(text: str) -> bool | None:
    """True, False, or None when the text affirms neither side or both."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    tokens = _TOKEN.findall(text[:MAX_CHARS])
    core = [token for token in tokens if token not in _LEAD]
    if len(core) == 1 and core[0] in _ALONE and tokens[-1] == core[0]:
        return _ALONE[core[0]]
    if not tokens or len(tokens) > _MAX_TOKENS or _HEDGES.intersection(tokens):
        return None
    found: set[bool] = set()
    for index, token in enumerate(tokens):
        if token not in _POLARITY:
            continue
        before = tokens[max(0, index - 3) : index]
        if any(word in _NEGATIONS or word.endswith("n't") for word in before):
            return None
        if token == "no" and tokens[index + 1 : index + 2] and tokens[index + 1] in _IDIOMS:
            return None
        found.add(_POLARITY[token])
    return found.pop() if len(found) == 1 else None


def prepare(reference: str, params: Mapping[str, Any]) -> bool:
    """Read the reference. Raises ValueError when it is not a yes/no/true/false."""
    value = polarity(unwrap(reference))
    if value is None:
        raise ValueError("wanted yes, no, true or false")
    return value


def verify(extracted: str, prepared: bool, params: Mapping[str, Any]) -> Verdict:
    """1 when the answer affirms the reference's side and no other."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"boolean: longer than {MAX_CHARS} characters",))
    value = polarity(extracted)
    if value is None:
        return Verdict(0.0, "unparseable", trace=("boolean: affirms neither side, or both",))
    return Verdict(float(value == prepared), trace=(f"boolean: affirms {value}, reference {prepared}",))


VERIFIER = Verifier(prepare, verify)
