"""Answer type -> verifier: the one visible dict. A new type is one file with a VERIFIER and one line here.

A module is imported when its type is first scored, so that `import reward` does not pay for the SVG renderer.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from reward.types import Verifier
from reward.verifiers import custom

ANSWER_TYPES: dict[str, str] = {
    "multiple-choice": "reward.verifiers.multiple_choice",
    "number": "reward.verifiers.number",
    "math-expressions": "reward.verifiers.math_expressions",
    "bbox": "reward.verifiers.bbox",
    "detection": "reward.verifiers.detection",
    "ocrtext": "reward.verifiers.ocrtext",
    "html-code": "reward.verifiers.html_code",
    "svg-code": "reward.verifiers.svg_code",
    "boolean": "reward.verifiers.boolean",
    "general-code": "reward.verifiers.general_code",
    "critic": "reward.verifiers.exact",
    "any": "reward.verifiers.exact",
    "http": "reward.verifiers.http",
}


class _Verifiers(dict[str, Verifier]):
    """Each type's VERIFIER, imported when first asked for, and the verifier of each `FILE.py:FUNCTION`.

    KeyError for a type that is not in ANSWER_TYPES, ValueError for a function that is not there.
    """

    def __missing__(self, name: str) -> Verifier:
        target = name if custom.is_custom(name) else ANSWER_TYPES[name]
        found = custom.verifier(target) if custom.is_custom(target) else import_module(target).VERIFIER
        self[name] = found
        return found


VERIFIERS = _Verifiers()


def register(verifiers: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Add answer types of one's own in this process: `{"my-type": "my_rewards.py:score"}`, or a whole spec for a type.

    ValueError: the function is not there (naming file and line), or the type is one of the recipe's.
    """
    for answer_type, named in verifiers.items():
        name = named.get("verifier") if isinstance(named, Mapping) else named
        if not isinstance(name, str) or (name not in ANSWER_TYPES and not custom.is_custom(name)):
            wanted = f"FILE.py:FUNCTION or a spec with a verifier of {sorted(ANSWER_TYPES)}"
            raise ValueError(f"reward.verifiers.{answer_type}: got {named!r}, wanted {wanted}")
        target = ANSWER_TYPES.get(name, name)
        if ANSWER_TYPES.get(answer_type, target) != target:
            raise ValueError(f"reward.verifiers.{answer_type}: is {ANSWER_TYPES[answer_type]} already")
        if custom.is_custom(target):
            custom.find(target)
        ANSWER_TYPES[answer_type] = target


def verifier_name(answer_type: str, named: str | None) -> str:
    """Key in VERIFIERS for an answer type, or for the verifier that a spec names instead. ValueError: unknown."""
    name, field = (answer_type, "answer_type") if named is None else (named, "spec.verifier")
    if isinstance(name, str) and custom.is_custom(name):
        return name
    if not isinstance(name, str) or name not in ANSWER_TYPES:
        raise ValueError(f"{field}: got {name!r}, wanted one of {sorted(ANSWER_TYPES)} or FILE.py:FUNCTION")
    return ANSWER_TYPES[name] if custom.is_custom(ANSWER_TYPES[name]) else name
