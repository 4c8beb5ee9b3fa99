"""`latex2sympy2` for lmms-eval's MathVision: the function, from the fork that math-verify uses.

The package of this name wants antlr4 4.7.2, math-verify 4.9.3 or newer: together one of them fails at its import,
and MathVision then scores nothing but says so only in a warning.
"""

from latex2sympy2_extended import latex2sympy

__all__ = ["latex2sympy"]
