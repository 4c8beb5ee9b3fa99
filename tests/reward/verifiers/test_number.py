# ruff: noqa: E501 - the case tables read better unwrapped
from fractions import Fraction

import pytest

from reward.score import score_local
from reward.spec import resolve
from reward.verifiers.number import VERIFIER, parse_quantity

PARAMS = resolve("number").params

# one number, and its value
READ = {
    "5": 5, "-5": -5, "+5": 5, "−5": -5, "- 5": -5, "５": 5, "007": 7, "5.": 5, "12.0": 12, ".5": Fraction(1, 2), "-0": 0,
    "1,234": 1234, "12,345,678": 12345678, "1{,}234": 1234, "1\\,234": 1234, "1,000,000.50": Fraction(2000001, 2),
    "1e3": 1000, "1E3": 1000, "3.0e-2": Fraction(3, 100), "10^3": 1000, "3 \\times 10^3": 3000, "3×10³": 3000,
    "2.5×10^{-3} m": Fraction(1, 400), "3/4": Fraction(3, 4), "3 / 4": Fraction(3, 4), "(3/4)": Fraction(3, 4),
    "-(3/4)": Fraction(-3, 4), "\\frac{3}{4}": Fraction(3, 4), "-\\dfrac{3}{4}": Fraction(-3, 4), "\\frac34": Fraction(3, 4),
    "1\\frac{1}{2}": Fraction(3, 2), "1 1/2": Fraction(3, 2), "½": Fraction(1, 2), "1½": Fraction(3, 2), "3/4 cup": Fraction(3, 4),
    "$5": 5, "\\$5": 5, "$5.00": 5, "-$5": -5, "$-5": -5, "€ 5": 5, "5€": 5, "£5": 5, "5 USD": 5, "USD 5": 5, "5 dollars": 5,
    "5 cm": 5, "12cm": 12, "12 km/h": 12, "12 m/s^2": 12, "12 cm²": 12, "5\\text{ cm}": 5, "5~\\mathrm{cm}^2": 5, "5°": 5,
    "90^{\\circ}": 90, "5 °C": 5, "5 apples": 5, "There are 5 apples.": 5, "There are 5 red cars in the image.": 5,
    "The answer is 5": 5, "The answer is: 5.": 5, "Answer: 5": 5, "The number of cars is 7": 7, "x = 5": 5, "x=-5": -5,
    "\\approx 5": 5, "about 5": 5, "five": 5, "twenty-one": 21, "one apple": 1, "minus 5": -5, "1.5 million": 1500000, "$5M": 5000000,
    "(5)": 5, "\\text{5}": 5, "5,": 5,
}  # fmt: skip

# not exactly one number
REFUSED = """
5-7|5 - 7|5–7|5 to 7|from 5 to 7|between 5 and 7|5~7|1, 2, 3|5, 6|5;6|5 and 6|5 or 6|five or six|5 of 10|5 out of 10|5 of ten
2020-01-01|1/2/2020|May 5|5 May|5 May 2020|Jan 5|12:30|5 pm|5am|5 o'clock|5 a.m.|5:00 pm|not 5|no 5|isn't 5|5 is wrong
5 isn't right|5 is not|more than 5|at least 5|>5|<5|≥5|5+|± 5|5 ± 1|5+3|5*3|5 = 5|5 - 3|2^3|5²|√4|\\sqrt{4}|5!|1/0|0/0|3:4
NaN|nan|inf|-inf|infinity|1e999|1e99999999|9e401|--5|+-5|5 5|1 234|12 000|1,23|12,34,567|0,123|1.234,56|1.2.3|1_000|0x10
1e|e3|1e3e3|5th|1st|A5|B12|5x|2a|#5|[5]|{5}|5/|/5|1/2/3|5'10"|5 ft 10 in|5 hours 30 minutes|3 apples and 4 oranges
half|two-thirds|three quarters|two and a half|unknown|none|apple||   |.|-|...|$|\\frac{1}{|\\frac{1}{0}|10^{10^{10}}|10^999999
5?|5 million million|maybe 5|either 5|5 but|I have no idea|٥٦ or 7|1e5000|<b>5</b>|5 squared|zero or one|2 halves
""".replace("\n", "|").split("|")


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_read(text, value):
    assert parse_quantity(text).value == value


@pytest.mark.parametrize("text", [*REFUSED, "5\n6", "1\n2\n3"])
def test_refused(text):
    assert parse_quantity(text) is None


def judge(reference, answer, **params):
    return VERIFIER.verify(answer, VERIFIER.prepare(reference, PARAMS | params), PARAMS | params).accuracy


@pytest.mark.parametrize(
    ("reference", "answer", "accuracy"),
    [
        ("1000", "1,000", 1),
        ("5", "5.0", 1),
        ("5", "-5", 0),
        ("-5", "5", 0),
        ("5", "5.0000001", 0),
        ("0.001", "0.004", 0),
        ("1234", "1234.0 km", 1),
        ("0.75", "3/4", 1),
        ("0.333", "1/3", 0),
        ("50%", "50%", 1),
        ("50%", "0.5", 1),
        ("0.5", "50%", 1),
        ("50", "50%", 1),
        ("50%", "50", 1),
        ("0.5", "0.5%", 0),
        ("5", "0.05%", 0),
        ("50", "0.5", 0),
        ("5", "5k", 0),
        ("5000", "5k", 1),
        ("5", "5 million", 0),
        ("10", "5 of 10", 0),
        ("5", "5 of 10", 0),
        ("2020", "2020-01-01", 0),
        ("12", "12:30", 0),
        ("100000000000000000001", "100000000000000000000", 0),
        ("9007199254740993", "9007199254740992", 0),
        ("0.1", "0.10000000000000000001", 0),
    ],
)
def test_judgement(reference, answer, accuracy):
    assert judge(reference, answer) == accuracy


def test_tolerances_are_inclusive_and_exact():
    assert judge("10", "10.1", tolerance=0.1) == 1
    assert judge("10", "10.1000001", tolerance=0.1) == 0
    assert judge("200", "210", relative_tolerance=0.05) == 1
    assert judge("200", "210.1", relative_tolerance=0.05) == 0
    assert judge("-200", "-210", relative_tolerance=0.05) == 1


@pytest.mark.parametrize("reference", ["five or six", "1-2", "abc", "1, 2", "NaN", "1e999"])
def test_unreadable_reference_is_our_error(reference):
    with pytest.raises(ValueError, match="answer"):
        score_local("<answer>5</answer>", reference, "number")


@pytest.mark.parametrize(
    "spec", [{"tolerance": -1}, {"tolerance": "1"}, {"tolerance": True}, {"relative_tolerance": None}]
)
def test_bad_tolerance_names_the_key(spec):
    with pytest.raises(ValueError, match="tolerance"):
        score_local("<answer>5</answer>", "5", "number", spec=spec)
