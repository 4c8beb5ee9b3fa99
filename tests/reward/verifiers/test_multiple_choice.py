# ruff: noqa: E501 - the case tables read better unwrapped
import pytest

from reward.score import score_local
from reward.spec import resolve
from reward.verifiers.multiple_choice import VERIFIER

PARAMS = resolve("multiple-choice").params
OPTIONS = {"A": "10 cm", "B": "12 cm", "C": "14 cm", "D": "A cat"}

AFFIRMS_B = (
    r"""
B|b|(B)|(b)|[B]|{B}|B.|B)|B:|B,|B;|B!|"B"|'B'|**B**|*B*|`B`|$B$|\text{B}|\textbf{B}|\mathrm{B}|\text{(B)}|(\text{B})|$\text{B}$|\boxed{B}|Ｂ|Ⓑ
B) 12 cm|B. 12 cm|(B) 12 cm|B: 12 cm|B - 12 cm|B – 12 cm|B, 12 cm|**B.** 12 cm|**B) 12 cm**|B (12 cm)|B) A cat|B. None of the above
B. not enough information|\text{B) 12 cm}|B) vitamin C|B. 5 N|B) 12 V|Option B|option (B)|Choice B|Choice: B|Answer: B|answer is B|Answer B
The answer is B|The answer is B.|The answer is: B|The answer is (B).|The answer is **B**|The correct answer is B|The correct option is B.
The correct answer is option B|the final answer is B|The best answer is (B) 12 cm|My answer is B|So the answer is B|Therefore, the answer is B.
Thus, B|It is B|It's B|I choose B|I would choose B|I think it is B|I think it's B|I select (B)|B is correct|B is the correct answer|(B) is correct.
B is the answer|Option B: 12 cm|Option B is correct|B because it is longer|The answer is B) 12 cm.
""".strip()
    .replace("\n", "|")
    .split("|")
)

DOES_NOT_AFFIRM_B = (
    r"""
A|C|D|a|(C)|The answer is C|not B|Not B|It is not B|It's not B|The answer is not B|B is wrong|B is incorrect|B is not correct|B isn't correct
(B) is wrong|B) is not correct|anything but B|everything except B|neither B|none|None of them|A or B|B or C|B or not|A and B|Both A and B|A, B|A/B|A,B|AB|BA|BC
B, C|B. C.|(A)(B)|(A) or (B)|B) or C)|B) 12 cm or C) 14 cm|A) 10 cm, B) 12 cm|A B|B C|B\nC|B (not C)|B?|Is it B?|maybe B|perhaps B|B maybe|Either B or C
Banana|Because|Box|bag|Bb|BB|B1|B12|12B|B's|B-side story|By|Be|B cat|Both|both|Best|The best|A cat|A dog|Apple|I|I think so|Blue|B^2|B_1|\beta|β|В
x = B?|?|.|()|( )||-|ABCD|A B C D|all|All of the above|A. B|A: B|B: C|C. B|D) B|unknown|B or something else|12 cm|12|option|The answer is|BCD|b c
I would not choose B|I don't think it's B|The answer isn't B|It can't be B|B and C|not (B)|!B|~B or C|A) B) C) D)|(A) (B) (C) (D)|A|B|C|D or so
""".strip()
    .replace("\n", "|")
    .replace("A|B|C|D or so", "Any of them")
    .split("|")
)


def judge(reference, answer, options=None):
    params = PARAMS | {"options": options}
    return VERIFIER.verify(answer, VERIFIER.prepare(reference, params), params).accuracy


@pytest.mark.parametrize("answer", AFFIRMS_B)
def test_affirms(answer):
    assert judge("B", answer) == 1


@pytest.mark.parametrize("answer", DOES_NOT_AFFIRM_B)
def test_does_not_affirm(answer):
    assert judge("B", answer.replace("\\n", "\n")) == 0


@pytest.mark.parametrize(
    ("reference", "answer", "accuracy"),
    [
        ("A,C", "A,C", 1),
        ("A,C", "C, A", 1),
        ("A, C", "AC", 1),
        ("AC", "CA", 1),
        ("AC", "A and C", 1),
        ("AC", "Both A and C", 1),
        ("AC", "(A) and (C)", 1),
        ("AC", "(A), (C)", 1),
        ("AC", "[A, C]", 1),
        ("AC", '["A", "C"]', 1),
        ("AC", "The answers are A and C", 1),
        ("ABD", "A, B, and D", 1),
        ("ABD", "A B D", 1),
        ("AC", "A", 0),
        ("AC", "C", 0),
        ("AC", "A, B, C", 0),
        ("AC", "A or C", 0),
        ("AC", "A, A", 0),
        ("AC", "AD", 0),
        ("AC", "ac dc", 0),
        ("AC", "not A and C", 0),
        ("A", "A, C", 0),
        ("A,B,D", "bad", 0),
    ],
)
def test_several_letters_compare_as_sets(reference, answer, accuracy):
    assert judge(reference, answer) == accuracy


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [
        ("12 cm", 1),
        ("12  CM.", 1),
        ("The answer is 12 cm", 1),
        ("B) 12 cm", 1),
        ("(B) 12 cm", 1),
        ("B", 1),
        ("14 cm", 0),
        ("B) 14 cm", 0),  # the letter and the text contradict each other
        ("C) 12 cm", 0),
        ("12", 0),
        ("not 12 cm", 0),
        ("10 cm or 12 cm", 0),
        ("A cat", 0),
        ("", 0),
    ],
)
def test_option_texts(answer, accuracy):
    assert judge("B", answer, OPTIONS) == accuracy
    assert judge("12 cm", answer, OPTIONS) == accuracy
    assert judge("B", answer, ["10 cm", "B. 12 cm", "14 cm", "A cat"]) == accuracy


def test_a_letter_is_a_letter_even_where_the_options_are_letters():
    assert judge("B", "B", ["B", "A"]) == 1
    assert judge("A", "B", ["B", "A"]) == 0
    assert judge("B", "7", ["5", "7"]) == 1


def test_an_option_text_that_starts_with_a_letter():
    assert judge("D", "A cat", OPTIONS) == 1
    assert judge("A", "A cat", OPTIONS) == 0


@pytest.mark.parametrize(
    ("reference", "options"), [("12 cm", None), ("cat", None), ("E", OPTIONS), ("1", None), ("A or B", None)]
)
def test_unreadable_reference_is_our_error(reference, options):
    with pytest.raises(ValueError, match="answer"):
        score_local("<answer>A</answer>", reference, "multiple-choice", spec={"options": options})


@pytest.mark.parametrize("options", [[], {}, "AB", {"AA": "x"}, 3])
def test_bad_options_name_the_key(options):
    with pytest.raises(ValueError, match="options"):
        score_local("<answer>A</answer>", "A", "multiple-choice", spec={"options": options})
