# ruff: noqa: E501 - the case tables read better unwrapped
import pytest

from reward.score import score_local
from reward.verifiers.boolean import polarity
from reward.verifiers.exact import normalized


def accuracy(answer, reference, answer_type, **spec):
    return score_local(f"<answer>{answer}</answer>", reference, answer_type, spec=spec).parts["accuracy"]


YES = (
    """yes|Yes|YES.|yes!|"yes"|(yes)|**Yes**|\\text{Yes}|true|True.|Y|y.|T|t|Yes, it is.|Yes, there is no cat? yes|The answer is yes.|It is true|Answer: yes
yes yes|Yes - the statement is true.|Ｙｅｓ""".replace("|Yes, there is no cat? yes", "")
    .replace("\n", "|")
    .split("|")
)
NO = [
    "no",
    "No.",
    "NO!",
    "false",
    "False",
    "n",
    "N.",
    "F",
    "No, it is not.",
    "The answer is no",
    "**No**",
    "The statement is false",
]
NEITHER = """unknown|nothing|none|not true|not false|It is not true|maybe|maybe yes|yes or no|yes/no|yes and no|Yes. No.|true or false|no, yes|I don't know|now|know
noon|yesterday|eyes|truth|untrue|falsehood|knot|north|cannot|isn't true|never true|not yes|no doubt|no idea|no one|1|0|||?|y/n|yesno|truefalse|noyes|maybe
It is neither true nor false|hardly true|possibly|probably no|either|if yes|correct|wrong|sure|ok|a|b|ye s|nope|yep|yess|not sure, yes|unsure yes""".replace(
    "\n", "|"
).split("|")


@pytest.mark.parametrize("text", YES)
def test_affirms_yes(text):
    assert (accuracy(text, "yes", "boolean"), accuracy(text, "no", "boolean")) == (1, 0)


@pytest.mark.parametrize("text", NO)
def test_affirms_no(text):
    assert (accuracy(text, "No", "boolean"), accuracy(text, "True", "boolean")) == (1, 0)


@pytest.mark.parametrize("text", NEITHER)
def test_affirms_neither(text):
    assert polarity(text) is None
    assert (accuracy(text, "yes", "boolean"), accuracy(text, "no", "boolean")) == (0, 0)


@pytest.mark.parametrize("reference", ["maybe", "yes or no", "1", "unknown"])
def test_boolean_reference_is_our_error(reference):
    with pytest.raises(ValueError, match="answer"):
        accuracy("yes", reference, "boolean")


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Paris", "paris", 1),
        (" Paris. ", "Paris", 1),
        ('"Paris"', "Paris", 1),
        ("**Paris**", "Paris", 1),
        ("Ｐａｒｉｓ", "Paris", 1),
        ("new   york", "New York", 1),
        ("(x)", "x", 1),
        ("Paris!", "Paris", 1),
        ("5!", "5", 0),
        ("C++", "C", 0),
        (".5", "5", 0),
        ("-5", "5", 0),
        ("f(x)", "f(x", 0),
        ("Paris, France", "Paris", 0),
        ("Par is", "Paris", 0),
        ("pari", "paris", 0),
        ("not Paris", "Paris", 0),
        ("Paris London", "London Paris", 0),
        ("resume", "résumé", 0),
        ("...", "?", 0),
        ("...", "...", 1),
    ],
)
def test_exact(answer, reference, expected):
    assert accuracy(answer, reference, "any") == expected
    assert accuracy(answer, reference, "critic") == expected


def test_exact_normalisation_is_idempotent():
    for text in ("**(Paris).**", "''x''", "((a))", "5!", "“Hi.”"):
        assert normalized(normalized(text)) == normalized(text)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Hello World", "hello  world", 1.0),
        ("hello\nworld", "Hello World", 1.0),
        ("abcd", "abce", 0.75),
        ("ab", "abcd", 0.5),  # exactly at the threshold
        ("a", "abc", 0.0),
        ("abxx", "abyy", 0.5),
        ("axxx", "ayyy", 0.0),
        ("kitten", "sitting", 1 - 3 / 7),
        ("e\u0301t\u00e9", "\u00e9te\u0301", 1.0),  # NFC
        ("x" * 90_000, "y" * 10, 0.0),
        ("hello hello hello hello", "hello", 0.0),
        ("$5.00", "$5.00", 1.0),
        ("**Total**", "**Total**", 1.0),
        ("日本語", "日本誤", 1 - 1 / 3),
    ],
)
def test_ocrtext(answer, reference, expected):
    assert accuracy(answer, reference, "ocrtext") == pytest.approx(expected)


def test_ocrtext_threshold_and_best_reference():
    assert accuracy("abcd", "abce", "ocrtext", min_similarity=0.8) == 0
    assert accuracy("ab", "abcdef", "ocrtext", min_similarity=0.0) == pytest.approx(1 / 3)
    assert accuracy("abcd", ["zzzz", "abcd"], "ocrtext") == 1


def test_too_long_is_rejected_not_scored():
    output = score_local("<answer>" + "x" * 150_000 + "</answer>", "x", "ocrtext")
    assert (output.parts["accuracy"], output.status) == (0, "rejected")
