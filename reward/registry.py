"""Answer type -> verifier: the one visible dict. A new type is one file, one line here and one in spec.DEFAULTS."""

from reward import (
    bbox,
    boolean,
    detection,
    exact,
    general_code,
    html_code,
    math_expressions,
    multiple_choice,
    number,
    ocrtext,
    svg_code,
)
from reward.types import Verifier

VERIFIERS: dict[str, Verifier] = {
    "multiple-choice": multiple_choice.VERIFIER,
    "number": number.VERIFIER,
    "math-expressions": math_expressions.VERIFIER,
    "bbox": bbox.VERIFIER,
    "detection": detection.VERIFIER,
    "ocrtext": ocrtext.VERIFIER,
    "html-code": html_code.VERIFIER,
    "svg-code": svg_code.VERIFIER,
    "boolean": boolean.VERIFIER,
    "general-code": general_code.VERIFIER,
    "critic": exact.VERIFIER,
    "any": exact.VERIFIER,
}
