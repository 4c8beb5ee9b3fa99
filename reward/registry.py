"""Answer type -> verifier: the one visible dict. A new type is one file, one line here and one in spec.DEFAULTS.

A module is imported when its type is first scored, so that `import reward` does not pay for the SVG renderer.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from reward.types import Verifier

MODULES: dict[str, str] = {
    "multiple-choice": "reward.multiple_choice",
    "number": "reward.number",
    "math-expressions": "reward.math_expressions",
    "bbox": "reward.bbox",
    "detection": "reward.detection",
    "ocrtext": "reward.ocrtext",
    "html-code": "reward.html_code",
    "svg-code": "reward.svg_code",
    "boolean": "reward.boolean",
    "general-code": "reward.general_code",
    "critic": "reward.exact",
    "any": "reward.exact",
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
