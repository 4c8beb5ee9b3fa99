"""Two-stage parsing gives the trees of the library's own parsing, and goes on to the second stage where it must."""

import pytest
import sympy

from reward.reading.math_grammar import TwoStageConverter

library = TwoStageConverter.__base__


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{2\sqrt{3}}{5}", r"x^{2}+3x-1", r"(1,\pi)", r"[0,\infty)", r"\{1,2\}", r"y=\sin 30", r"a/b/c",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"3 \times 10^{5}", r"x<5", r"1<x\le 3", r"2\sin x\cos y", r"-2^2",
        r"\int_0^1 x dx", r"\sum_{i=1}^n i", r"a\cdot b\div c", r"|x|+1", r"3!", r"\log_2 8 x", r"x\in[1,2]", r"1,2;3",
        r"\frac{1}{2} x", r"e^{x/2}-\ln 2", r"(-\infty,1)\cup(3,4]",
    ],
)  # fmt: skip
def test_the_trees_are_those_of_the_library(latex):
    trees = [sympy.srepr(converter(None, True).parse(latex)) for converter in (library, TwoStageConverter)]
    assert trees[0] == trees[1]


def test_the_second_stage_reads_what_the_first_cannot(monkeypatch):
    latex = "x^{2}+16x-8"
    monkeypatch.setattr(TwoStageConverter, "parse", library.parse)
    with pytest.raises(Exception, match="I "):
        TwoStageConverter(None, True).parse(latex)
    monkeypatch.undo()
    converter = TwoStageConverter(None, True)
    assert sympy.srepr(converter.parse(latex)) == sympy.srepr(library(None, True).parse(latex))
    assert converter._prediction is not TwoStageConverter._prediction
