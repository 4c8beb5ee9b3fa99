# ruff: noqa: E501 - the case tables read better unwrapped
import time

import pytest

from reward.reading.math_guard import refusal
from reward.score import score_local
from reward.spec import resolve
from reward.verifiers.math_expressions import VERIFIER, prepare, quick

PARAMS = resolve("math-expressions").params

# reference ~ answers that mean the same
EQUAL = r"""
5 ~ 5 ~ 5.0 ~ 5. ~ +5 ~ \text{5} ~ $5$ ~ x = 5 ~ x=5 ~ \approx 5 ~ ≈5 ~ ５ ~ The answer is $5$. ~ \frac{10}{2} ~ 2+3 ~ 5\text{ cm} ~ 5 apples ~ (5) ~ \$5
x = 5 ~ 5 ~ x=5 ~ x = 5.0 ~ x=2+3 ~ 5=x
\frac{1}{2} ~ 1/2 ~ 0.5 ~ .5 ~ \frac12 ~ \dfrac{1}{2} ~ 2/4 ~ 50\% ~ 50% ~ ½ ~ 0.50
1\frac{1}{2} ~ 1.5 ~ 3/2 ~ 1 1/2 ~ 1½
1000 ~ 1,000 ~ 1e3 ~ 10^3 ~ 10^{3} ~ 1{,}000 ~ 1\,000
\frac{1}{3} ~ 0.\overline{3} ~ 0.333333 ~ 1/3 ~ 2/6 ~ 33\frac{1}{3}\%
0.1\overline{6} ~ 1/6
-\frac{1}{2} ~ -0.5 ~ \frac{-1}{2} ~ −1/2
3\times10^5 ~ 300000 ~ 3e5 ~ 3 \cdot 10^5 ~ 3×10⁵
50\% ~ 0.5 ~ 50 ~ 50 percent ~ 1/2
10^5 ~ 100000 ~ 10^{5}
7\text{ m} ~ 7 m ~ 7 ~ 7m ~ 700 cm ~ 7\,\mathrm{m} ~ 7 meters
5\text{ cm}^2 ~ 5 ~ 5 cm^2 ~ 5 cm² ~ 5\text{ square centimeters}
90^\circ ~ 90 ~ 90° ~ \frac{\pi}{2} ~ 90 degrees
\sqrt{2} ~ √2 ~ \sqrt2 ~ sqrt(2) ~ \frac{2}{\sqrt{2}} ~ 2^{1/2} ~ 1.41421356
2\sqrt{3} ~ \sqrt{12} ~ 2√3 ~ 2\sqrt{3}\text{ cm}
\frac{\pi}{2} ~ π/2 ~ \pi/2 ~ 0.5\pi
2\pi ~ 2π ~ 2pi ~ \pi \cdot 2
x^2-1 ~ (x-1)(x+1) ~ x²-1 ~ x^{2} - 1 ~ -1+x^2 ~ x**2-1
2x+3 ~ 3+2x ~ 2*x+3 ~ y = 2x+3
y=2x+1 ~ y = 1+2x ~ 2x+1 ~ 2x-y+1=0
\frac{x+1}{x-1} ~ (x+1)/(x-1)
\{1,2\} ~ \{2,1\} ~ 1,2 ~ 2, 1 ~ 1 \text{ and } 2 ~ x=1 \text{ or } x=2
(1,2) ~ (1, 2) ~ \left(1,2\right) ~ 1,2
x=1,y=2 ~ y=2, x=1 ~ (1,2)
[0,1) ~ [0, 1) ~ \left[0,1\right)
(-\infty,1)\cup(2,\infty) ~ (2,\infty)\cup(-\infty,1) ~ (-∞,1)∪(2,∞)
x>5 ~ 5<x ~ (5,\infty) ~ x > 5
x\le 5 ~ x<=5 ~ x \leq 5 ~ x ≤ 5
1<x<2 ~ (1,2)
\pm 2 ~ ±2 ~ 2,-2
\begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{bmatrix}1&2\\3&4\end{bmatrix} ~ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\begin{bmatrix} 1 \\ 2 \end{bmatrix} ~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\sin 30^\circ ~ 1/2 ~ 0.5
\log_2 8 ~ 3
3:4 ~ 3/4
5! ~ 120
\binom{5}{2} ~ 10
\infty ~ ∞
\text{no solution} ~ no solution ~ No solution.
\text{East} ~ east
ABC ~ CBA
\angle ABC ~ \angle CBA
2+3i ~ 3i+2
\frac{2}{3}\pi ~ \frac{2\pi}{3} ~ 2π/3 ~ 120^\circ
y = -\frac{1}{2}x + 3 ~ y=-0.5x+3 ~ x + 2y = 6 ~ y = -\frac{x}{2} + 3
12 ~ x ≈ 12 ~ The area is 12 ~ area = 12 ~ A=12\text{ cm}^2 ~ S = 3 \times 4 = 12 ~ \mathbf{12}
-3 ~ minus 3 ~ negative 3 ~ -(3) ~ –3
60^\circ ~ ∠ABC = 60° ~ \frac{\pi}{3} ~ 60\degree
2^{10} ~ 1,024 ~ 2^10
\mathbb{R} ~ ℝ ~ (-\infty,\infty) ~ \text{all real numbers}
\emptyset ~ \varnothing ~ ∅
\vec{v} = (1,2) ~ \langle 1,2 \rangle
\begin{cases} x=1 \\ y=2 \end{cases} ~ x=1,y=2
2n+1 ~ 2n + 1, n \in \mathbb{Z}
[2, 5] ~ 2 \le x \le 5 ~ x \in [2,5]
f(x)=x^2 ~ x^2 ~ f(x) = x²
""".strip().splitlines()

# reference ~ answers that must not pay
DIFFERENT = r"""
5 ~ -5 ~ 6 ~ 5x ~ 5, 6 ~ 5 or 6 ~ \{5\,6\} ~ (5,5) ~ x>5 ~ x \ne 5 ~ 6=5 ~ x=4=5 ~ x=5=6 ~ 5 6 ~ 55 ~ 5? ~ not 5 ~ 50 ~ 0.05% ~ 5m+1 ~ --5 ~ +-5 ~ 5^2 ~ \frac{1}{5} ~ 5:2
10^5 ~ 10^6 ~ 10 ~ 5 ~ 105 ~ 10^{-5} ~ 50
2a ~ 2b ~ a ~ 2 ~ 3a ~ a^2 ~ 2+a ~ 2A ~ 2aa
7 m ~ 5 m ~ 7 cm ~ 7 km ~ 7 s ~ 7 m^2 ~ 70 m ~ 8
7m ~ 7 ~ 7n ~ 7 m n ~ m
0.001 ~ 0.004 ~ 0.0010001 ~ 0 ~ 0.01
0 ~ 0.0000001 ~ 10^{-9} ~ 1 ~ \frac{1}{10^{12}}
1,2,3 ~ 1 ~ 3 ~ 123 ~ 1,2 ~ 1,2,3,4 ~ 1,2,4 ~ 6
1 ~ 1,2,3 ~ 1,1 ~ 1.0000001
x=5 ~ y=5 ~ x=6 ~ x=-5 ~ x>5 ~ 6
x+y=5 ~ 5 ~ x+y=6 ~ x-y=5
y=2x+1 ~ y=2x ~ 2x-1 ~ y=x+1
\{1,2\} ~ (1,2) ~ 1 ~ \{1\} ~ \{1,2,3\} ~ [1,2] ~ \{1,3\} ~ 12 ~ 1.2
(1,2) ~ (2,1) ~ \{1,2\} ~ [1,2] ~ (1,2] ~ [1,2) ~ (1,3) ~ 1 ~ (1,2,3)
[0,1) ~ (0,1) ~ [0,1] ~ (0,1] ~ [0,2) ~ \{0,1\}
x=1,y=2 ~ x=2,y=1 ~ (2,1) ~ 1 ~ 2,1 ~ x=1
(-\infty,1) ~ (1,\infty) ~ (-\infty,1] ~ (-\infty,2) ~ 1
x>5 ~ x<5 ~ x\ge 5 ~ x>6 ~ 5 ~ y>5
\pm 2 ~ 2 ~ -2 ~ \pm 3 ~ 4
2 ~ \pm 2 ~ 2,-2
\frac{1}{2} ~ 2 ~ \frac{2}{1} ~ 1,2 ~ 12 ~ 0.5% ~ 5 ~ -\frac{1}{2} ~ \frac{1}{3} ~ 1:3
1\frac12 ~ \frac{12}{2} ~ \frac{11}{2} ~ 1 ~ \frac12
\frac13 ~ 0.33 ~ 0.3333 ~ 3 ~ 0.4
\sqrt{2} ~ 2 ~ 1.414 ~ 1.4 ~ \sqrt{3} ~ -\sqrt{2}
\pi ~ 3 ~ 3.14 ~ \frac{22}{7} ~ 2\pi ~ p ~ 3.1416
\frac{\pi}{10^7} ~ 0 ~ 0.0
x^2 ~ 2^x ~ x_2 ~ x^3 ~ 2x ~ x
x_1 ~ x_2 ~ x ~ x^1+1
x^2-1 ~ (x-1)^2 ~ x^2+1 ~ (x+1)(x+1) ~ x^2
\sin x ~ \cos x ~ \sin y ~ \sin 2x ~ x
\sin 30 ~ \sin 30^\circ ~ 1/2
30^\circ ~ 60^\circ ~ 3 ~ \frac{\pi}{3}
90^\circ ~ \pi ~ 90 cm ~ 180^\circ
50\% ~ 0.05 ~ 5 ~ 5\% ~ 500
a-b ~ b-a ~ a+b
\frac{a}{b} ~ \frac{b}{a} ~ ab
\ln 2 ~ \log 2 ~ 2 ~ 0.69
3:4 ~ 4:3 ~ 3:5 ~ 34
\begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{pmatrix}1&2\\3&5\end{pmatrix} ~ \begin{pmatrix}1&3\\2&4\end{pmatrix} ~ 1,2,3,4 ~ \begin{pmatrix}1&2&3&4\end{pmatrix} ~ 10
\begin{bmatrix} 1 \\ 2 \end{bmatrix} ~ \begin{bmatrix} 2 \\ 1 \end{bmatrix} ~ \begin{bmatrix} 1 & 2 \end{bmatrix} ~ 3 ~ \begin{bmatrix} 12 \end{bmatrix}
\text{east} ~ west ~ seat ~ eats ~ e ~ 4
hello ~ olleh ~ hell ~ hello world ~ 5
ABC ~ ACB ~ ABD ~ AB
\angle A ~ \angle B
\text{no solution} ~ 0 ~ solution ~ no ~ \emptyset x
5\text{ apples} ~ 6\text{ apples} ~ 5 oranges
5\text{ cm}^2 ~ 5\text{ cm}^3 ~ 5 cm ~ 5 m^2
\$5 ~ \$6 ~ \$50
6.02\times10^{23} ~ 6.02\times10^{22} ~ 6.02 ~ 6.02\times10^{-23}
12345678901 ~ 12345678902
\infty ~ -\infty ~ 0 ~ 1
1<x<2 ~ 1<x<3 ~ 1 ~ (1,2] ~ x<2
\frac{1}{0} ~ 1 ~ 0
n! ~ m! ~ n
\frac{2}{3}\pi ~ \frac{2}{3\pi} ~ 2/3
12 ~ twelve ~ 12 or 13 ~ 12±1 ~ 12! ~ 3x=12 ~ >12 ~ S=3\times 4=13 ~ The area is not 12 ~ 1 2
-3 ~ 3 ~ |-3| ~ 3-
60^\circ ~ 61° ~ 60' ~ 60 rad
2\sqrt{3}\text{ cm} ~ 2\sqrt{3}\text{ m} ~ 2\sqrt{3}\text{ cm}^2 ~ 2\sqrt{3}\%
25\% ~ 25 cm ~ 2.5% ~ 0.25%
x^2+2x+1 ~ x^2 + 2x + 1 = 0 ~ x^2+2x ~ y^2+2y+1
[2, 5] ~ 2 < x < 5 ~ 2,5 ~ (2,5)
\mathbb{R} ~ R ~ \mathbb{Z}
2x ~ 2.0000001x ~ 2x+0.0000001
100000001x ~ 100000002x
""".strip().splitlines()


def cases(lines):
    for line in lines:
        reference, *answers = (piece.strip() for piece in line.split(" ~ "))
        for answer in answers:
            yield pytest.param(reference, answer, id=f"{reference} ~ {answer}"[:60])


def judge(reference, answer, **params):
    completion = f"<answer>{answer}</answer>"
    return score_local(completion, reference, "math-expressions", spec=params).parts["accuracy"]


@pytest.mark.parametrize(("reference", "answer"), cases(EQUAL))
def test_equal(reference, answer):
    assert judge(reference, answer) == 1.0


@pytest.mark.parametrize(("reference", "answer"), cases(DIFFERENT))
def test_different(reference, answer):
    assert judge(reference, answer) == 0.0


HOSTILE = [
    "10^{10^{10}}",
    "9^{9^{9^{9}}}",
    "9**9**9**9",
    "((9^{999})^{999})^{999}",
    "9^{999*999*999}",
    "9^{9!}",
    "2^{10000000}",
    "2^1000000000",
    "10^{-99999999}",
    "1e999999999",
    "99999999!",
    "((9!)!)!",
    "9!!!!!!!!",
    "\\binom{10000000}{5000000}",
    "\\sum_{i=1}^{100000000} i",
    "\\prod_{i=1}^{99999} i",
    "(" * 400 + "5" + ")" * 400,
    "{" * 400 + "5" + "}" * 400,
    "\\frac{" * 200,
    "\\sqrt{" * 100 + "2" + "}" * 100,
    "9" * 900,
    "x^" * 300,
    "1+" * 499 + "1" * 10,
    "5" * 2000,
    "x" * 100_000,
    "\\" * 900,
    "{}" * 450,
    "^" * 900,
    "x" + "^2" * 60,
]


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda text: text[:24])
def test_hostile_input_ends_quickly_and_does_not_pay(answer):
    prepared = prepare("x+1", PARAMS)
    started = time.process_time()
    assert VERIFIER.verify(answer, prepared, PARAMS).accuracy == 0.0
    assert quick(answer, ("5",), PARAMS) is None or quick(answer, ("5",), PARAMS).accuracy == 0.0
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize(
    "harmless",
    [
        "x^{10}+x^{20}",
        "(x^2+1)^2",
        "e^{-x^2}",
        "e^{2x^2}",
        "2^{10}",
        "10^{23}",
        "x^{1/2}",
        "\\frac{\\frac{1}{2}}{3}",
        "((a+b)c)^2",
    ],
)
def test_the_guard_lets_mathematics_through(harmless):
    assert refusal(harmless) is None


@pytest.mark.parametrize("reference", ["???", "\\frac{1}{", "5 5 ?", "+", "{", "\\"])
def test_unreadable_reference_is_our_error(reference):
    with pytest.raises(ValueError, match="answer"):
        judge(reference, "5")


def test_the_quick_path_judges_numbers_alone():
    assert quick("1,000", ("1000",), PARAMS).accuracy == 1
    assert quick("x = 4", ("5",), PARAMS).accuracy == 0
    assert quick("4", ("5", "4"), PARAMS).accuracy == 1
    assert quick("x", ("5",), PARAMS) is None
    assert quick("5", ("x",), PARAMS) is None


def test_tolerance_reaches_constants_but_not_variables():
    assert judge("\\pi", "3.14", tolerance=0.01) == 1
    assert judge("\\pi", "3.1", tolerance=0.01) == 0
    assert judge("10", "10.4", relative_tolerance=0.05) == 1
    assert judge("x", "1.0001x", tolerance=0.01) == 0
