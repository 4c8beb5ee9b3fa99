"""Answer type -> verifier: the one visible dict. A new type is one file with a VERIFIER and one line here.

A module is imported when its type is first scored, so that `import reward` does not pay for the SVG renderer.
"""

from importlib import import_module

from reward.types import Verifier

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
}


class _Verifiers(dict[str, Verifier]):
    """Each type's VERIFIER, imported when first asked for. KeyError for a type that is not in ANSWER_TYPES."""

    def __missing__(self, answer_type: str) -> Verifier:
        self[answer_type] = import_module(ANSWER_TYPES[answer_type]).VERIFIER
        return self[answer_type]


VERIFIERS = _Verifiers()
