import time

import pytest

from reward.extract import MAX_COMPLETION_CHARS, MAX_UNWRAPPED_CHARS, answer_chars, extract, unwrap

FOUND = [
    ("<answer>B</answer>", "B"),
    ("<answer>B\u200b</answer>", "B"),
    ("<think>a</think><answer>B</answer>", "B"),
    ("<think>a</think>\n\n<answer>\n B \n</answer>\n", "B"),
    ("\\boxed{B}", "B"),
    ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
    ("\\boxed {5}", "5"),
    ("\\\\boxed{5}", "5"),
    ("\\boxed{\\boxed{5}}", "5"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\boxed{1} then \\boxed{2}", "2"),
    ("\\boxed{1} then \\boxed{2", "1"),
    ("<answer>A</answer><answer>B</answer>", "B"),
    ("<answer>A<answer>B</answer>", "B"),
    ("<answer><answer>B</answer></answer>", "B"),
    ("<answer>A</answer> \\boxed{B}", "A"),  # the tag wins over the box
    ("\\boxed{B} <answer>A</answer>", "A"),
    ("<answer>\\boxed{B}</answer>", "B"),
    ("<answer>$\\boxed{B}$</answer>", "B"),
    ("<answer>The answer is \\boxed{B}.</answer>", "B"),
    ("\\boxed{<answer>B</answer>}", "B"),
    ("<think><answer>A</answer></think><answer>B</answer>", "B"),
    ("<think>\\boxed{A}</think>\\boxed{B}", "B"),
    ("thinking</think><answer>B</answer>", "B"),  # the template may hold <think>
    ("<think>a</think><think>b</think><answer>B</answer>", "B"),
    ("<answer>B</answer><think>an unclosed thought <answer>C</answer>", "B"),
    ("<answer>**B**</answer>", "B"),
    ("<answer>*B*</answer>", "B"),
    ("<answer>`B`</answer>", "B"),
    ("<answer>$B$</answer>", "B"),
    ("<answer>$$B$$</answer>", "B"),
    ("<answer>\\(B\\)</answer>", "B"),
    ("<answer>\\[B\\]</answer>", "B"),
    ("<answer>\\text{B}</answer>", "B"),
    ("<answer>\\textbf{B}</answer>", "B"),
    ("<answer>$\\text{B}$</answer>", "B"),
    ("<answer>```\nB\n```</answer>", "B"),
    ("<answer>```json\n[1, 2]\n```</answer>", "[1, 2]"),
    ("<answer>```html\n<p>x</p>\n```</answer>", "<p>x</p>"),
    ("<answer>$5$ and $6$</answer>", "$5$ and $6$"),
    ("<answer>**A** or **B**</answer>", "**A** or **B**"),
    ("<answer>\\text{A} \\text{B}</answer>", "\\text{A} \\text{B}"),
    ("<answer>\\boxed{A} or \\boxed{B}</answer>", "\\boxed{A} or \\boxed{B}"),
]

NOT_FOUND = [
    "",
    "B",
    "The answer is B",
    "<answer>B",
    "B</answer>",
    "</answer>B<answer>",
    "<think><answer>B</answer>",
    "<think><answer>B</answer></think>",
    "<answer>B</answer></think>",
    "<answer>B</answer><think>x</think>",
    "<think>\\boxed{B}</think>",
    "\\boxed{B",
    "\\boxed{{B}",
    "\\boxed B",
    "\\boxed",
    "boxed{B}",
    "<Answer>B</Answer>",
    "<answer>A</answer><think>x</think> and nothing",
]


@pytest.mark.parametrize(("completion", "text"), FOUND)
def test_found(completion, text):
    assert extract(completion).text == text


@pytest.mark.parametrize("completion", NOT_FOUND)
def test_not_found(completion):
    assert extract(completion) is None


@pytest.mark.parametrize("completion", ["<answer></answer>", "<answer> \n </answer>", "\\boxed{}"])
def test_empty_answer_is_found_but_empty(completion):
    assert extract(completion).text == ""


def test_empty_answer_does_not_fall_back_to_an_earlier_box():
    assert extract("\\boxed{5} <answer></answer>").text == ""


def test_position_covers_the_whole_element():
    completion = "<think>x</think> so <answer>B</answer>."
    found = extract(completion)
    assert completion[found.start : found.end] == "<answer>B</answer>"
    assert found.convention == "answer"


def test_cut_off_answer_only_where_allowed():
    completion = "<think>x</think><answer><svg><rect/>"
    assert extract(completion) is None
    found = extract(completion, allow_unclosed=True)
    assert (found.text, found.closed) == ("<svg><rect/>", False)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Here it is:\n```python\nprint(1)\n```\nDone.", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("print(1)", "print(1)"),
        ("```\na\n```\n```\nb\n```", "```\na\n```\n```\nb\n```"),
    ],
)
def test_the_one_code_block_of_an_answer(answer, text):
    assert extract(f"<answer>{answer}</answer>", code_block=True).text == text


@pytest.mark.parametrize(
    "unit",
    [
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "\\boxed{",
        "{",
        "}",
        "\\",
        "$",
        "*",
        "```",
        "\\text{",
        "<",
        "_",
    ],
)
def test_hostile_repetition_is_linear(unit):
    completion = (unit * MAX_COMPLETION_CHARS)[: MAX_COMPLETION_CHARS * 2]
    started = time.process_time()
    extract(completion)
    extract("<answer>" + completion[:300_000] + "</answer>")
    unwrap(completion[:90_000])
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("``````", ""),
        ("`````", "`````"),
        ("```\nBC\n", "BC"),  # never closed, but a first line of its own
        ("```\nB", "```\nB"),  # too short to be a fence
        ("```B```", "B"),
        ("```two words\nB```", "two words\nB"),
        ("**", "**"),
        ("$$", "$$"),
        ("a \\boxed{B}", "a \\boxed{B}"),
        ("the answer is \\boxed{B}", "B"),
        ("\\text{\\{B\\}}", "\\{B\\}"),
        ("\\text{{A}{B}}", "{A}{B}"),
        ("\\text{A}}", "\\text{A}}"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("**_`$B$`_**", "B"),
        ("$5\\$", "$5\\$"),
    ],
)
def test_wrappings_that_span_the_whole_text_and_no_others(text, inner):
    assert unwrap(text) == inner


@pytest.mark.parametrize(
    ("completion", "chars"),
    [
        ("", 0),
        ("x", 0),
        ("<answer>B</answer>", 18),
        ("x <answer>B</answer> y <answer>CC</answer>", 18 + 19),
        ("<answer>A<answer>B</answer>", 18),
        ("</answer><answer>B", 0),
        ("\\boxed{B}", 9),
        ("\\boxed{<answer>B</answer>}", 26),
        ("<answer>\\boxed{B}</answer>", 26),
        ("\\boxed{A}<answer>B</answer>\\boxed{C}", 9 + 18 + 9),
    ],
)
def test_characters_of_all_answers_count_once(completion, chars):
    assert answer_chars(completion) == chars


def test_positions_of_a_box_and_whether_an_answer_was_closed():
    found = extract("so \\boxed{B} it is")
    assert (found.start, found.end, found.convention, found.closed) == (3, 12, "boxed", True)
    assert extract("<answer>B</answer>").closed
    assert extract("</think><answer>B</answer>").text == "B"
    assert extract("<answer>A</answer> x <answer>B", allow_unclosed=True).text == "B"
    assert extract("x```\nB\n```", code_block=True) is None
    assert extract("<answer>see ```\nB\n```</answer>").text == "see ```\nB\n```", "only where it is asked for"
    assert extract("\\boxed \t\n{5}").text == "5"
    assert extract("\\boxed     {5}") is None, "up to four blanks"


def test_what_is_too_long_is_cut_or_left_wrapped():
    assert extract("<answer>B</answer>".rjust(MAX_COMPLETION_CHARS)).text == "B"
    assert extract("<answer>B</answer>".rjust(MAX_COMPLETION_CHARS + 1)) is None
    long = "x" * (MAX_UNWRAPPED_CHARS - 2)
    assert unwrap(f"${long}$") == long
    assert unwrap(f"${long}x$") == f"${long}x$"
