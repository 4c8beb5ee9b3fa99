"""Answer type -> verifier: the one visible dict. A new type is one file, one line here and one in spec.DEFAULTS.

A module is imported when its type is first scored, so that `import reward` does not pay for the SVG renderer.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from reward.types import Verifier

MODULES: dict[str, str] = {
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


class _Verifiers(MutableMapping[str, Verifier]):
    """MODULES read as a mapping to each module's VERIFIER."""

    def __init__(self) -> None:
        self._loaded: dict[str, Verifier] = {}

    def __getitem__(self, answer_type: str) -> Verifier:
        if answer_type not in self._loaded:
            self._loaded[answer_type] = import_module(MODULES[answer_type]).VERIFIER
        return self._loaded[answer_type]

    def __setitem__(self, answer_type: str, verifier: Verifier) -> None:
        self._loaded[answer_type] = verifier

    def __delitem__(self, answer_type: str) -> None:
        del self._loaded[answer_type]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES | self._loaded)

    def __len__(self) -> int:
        return len(MODULES | self._loaded)


VERIFIERS: MutableMapping[str, Verifier] = _Verifiers()
