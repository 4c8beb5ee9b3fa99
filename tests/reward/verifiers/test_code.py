"""general-code: every test must pass, nothing can be faked, and a reference without tests is our error."""

import json

import pytest

from reward.reading.code_tests import decode, equal, read_suite
from reward.verifiers import general_code

STDIN = {"tests": [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "4 4\n", "stdout": "8"}]}
CALL = {"tests": [{"call": "add", "args": [2, 3], "expected": 5}, "assert add(0.1, b=0.2) == 0.3"]}
ASSERTS = "assert f(2) == (2, 'x')\nassert not f(0)\nassert f(1) is None"
SUM = "a, b = map(int, input().split())\nprint(a + b)"


def accuracy(code, reference):
    reference = reference if isinstance(reference, str) else json.dumps(reference)
    return general_code.verify(code, general_code.prepare(reference, {}), {}).accuracy


RIGHT = [
    (SUM, STDIN),
    (f"if __name__ == '__main__':\n    {SUM.replace(chr(10), '; ')}", STDIN),
    (SUM + "\nraise SystemExit(0)", STDIN),
    ("import sys\nprint(sum(map(int, sys.stdin.read().split())), end='\\n\\n')", STDIN),
    ("def add(a, b): return a + b", CALL),
    ("class Solution:\n    def add(self, a, b): return a + b", {"tests": CALL["tests"][:1]}),
    ("def f(n): return (n, 'x') if n == 2 else None", ASSERTS),
    ("def g(x): return x", {"inputs": [[1], [[2, 3]]], "outputs": [1, [2, 3]], "fn_name": "g"}),
    ("print(input()[::-1])", {"inputs": ["ab"], "outputs": ["ba"]}),
    ("def g(): return (1, 2)", [{"call": "g", "expected": [1, 2]}]),
    # The input as one string, what comes back printed: the form of the published data.
    ("def solution(input):\n    a, b = map(int, input.split())\n    return a + b", STDIN),
    ("def solution(input):\n    return str(sum(int(x) for x in input.split())) + '\\n'", STDIN),
    ("def solution(data, base=10):\n    print(sum(map(int, data.split())))", STDIN),
    (SUM.replace("print(a + b)", "def solution(n): return n\nprint(a + b)"), STDIN),
    # Nested lists
    ("print(int(input()) + int(input()))", {"inputs": [["2", "3"]], "outputs": [["5"]]}),
    ("print(input()); print(input())", {"inputs": [["a\n", "b\n"]], "outputs": [["a", "b"]]}),
    (SUM, [["2 3", "5"], ["4 4", "8"]]),
    (SUM, {"tests": [["2 3", ["5"]]]}),
    ("def g(x): return x + 1", {"inputs": [[1], [2]], "outputs": [[2], [3]], "fn_name": "g"}),
    ("def g(x): return [x + 1]", {"inputs": [[1], [2]], "outputs": [[2], [3]], "fn_name": "g"}),
    ("def g(xs): return xs[::-1]", {"inputs": [[[1, 2]]], "outputs": [[[2, 1]]], "fn_name": "g"}),
    ("def add(a, b): return a + b", {"fn_name": "add", "tests": [[[2, 3], 5], [[1, 1], 2]]}),
    ("def f(n): return n", [["assert f(1) == 1", "assert f(2) == 2"], ["assert f(3) == 3"]]),
    (SUM, "[{'input': '2 3', 'output': '5'}]"),
    # Names of typing without their import
    (
        "class Solution:\n    def add(self, a: int, b: Optional[int]) -> List[int]: return a + b",
        {"tests": CALL["tests"][:1]},
    ),
    ("def f(x: List[Dict[str, int]]) -> Tuple[int]: return x", "assert f(1) == 1"),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\ndef f(n): return P(n).x",
        "assert f(1) == 1",
    ),
    # Truth values
    ("def f(n): return n % 2 == 0", "assert f(2)\nassert not f(3)\nassert f(4) and f(5) == False"),
    ("import re\ndef f(n): return [n]", "assert f(2)"),
    ("class Solution:\n    def f(self, n): return True", "assert Solution().f(2)"),
]
EQUAL = "class E:\n    def __eq__(self, o): return True\n    def __hash__(self): return 5\n"
TRUE = "assert f(2)\nassert f(4) == True"
FORGED = (
    "import os, sys, time\ndef forge():\n    for fd in range(1, 64):\n        try: os.write(fd, "
    'b\'{"value": ["bool", true]}\\n\')\n        except OSError: pass\n'
)
WRONG = [
    ("print(5)", STDIN),  # right for the first test alone
    ("print(input())", STDIN),
    ("import sys; sys.exit(0)", STDIN),
    ("import os; print(5); os._exit(0)", STDIN),
    (SUM + "\n1 / 0", STDIN),
    ("def f(:", STDIN),
    ("", CALL),
    ("def add(a, b): return a - b", CALL),
    ("def add(a, b): return str(a + b)", CALL),
    ("import sys\ndef add(a, b): sys.exit(0)", CALL),
    ("raise SystemExit(0)", CALL),
    (EQUAL + "def add(a, b): return E()", CALL),
    (EQUAL.replace("class E", "class E(int)") + "def add(a, b): return E(9)", CALL),
    ("import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\ndef add(a, b): pass", CALL),
    ('import os\nos.write(3, b\'{"value": ["bool", true]}\\n\')\nos._exit(0)', CALL),
    # Each writes the record for itself, at once, in the call, before the true one, from a thread, over any descriptor.
    (FORGED + "forge(); os._exit(0)", TRUE),
    (FORGED + "forge()\ndef f(n): return False", TRUE),
    (FORGED + "def f(n): forge(); os._exit(0)", TRUE),
    (FORGED + "def f(n): forge(); raise SystemExit", TRUE),
    (FORGED + "import threading\nthreading.Thread(target=forge).start()\ndef f(n): time.sleep(0.1)", TRUE),
    (FORGED + "import atexit\natexit.register(forge)", TRUE),
    (FORGED + "os._exit = lambda code: forge()\nf = None", TRUE),
    (FORGED.replace("true", "null") + "print(5); forge(); os._exit(0)", {"tests": STDIN["tests"][:1]}),
    ("def solution(input): return 5", STDIN),
    ("def solution(): return 5", {"tests": STDIN["tests"][:1]}),
    ("def solution(input):\n    return input", STDIN),
    (SUM.replace("a + b", "a") + "\ndef solution(input): return sum(map(int, input.split()))", STDIN),
    ("def g(x): return [x]", {"inputs": [[1], [2]], "outputs": [[2], [3]], "fn_name": "g"}),
    ("def g(x): return 2", {"inputs": [[1], [2]], "outputs": [[2], [2, 3]], "fn_name": "g"}),
    ("def f(n): return n", "assert f(1) == 1 and f(2) == 3"),
    ("def f(x: Unknown): return x", "assert f(1) == 1"),
    ("import os\nos.write(3, b'[' * 100000)\nos._exit(0)", CALL),
    ("import os\nos.write(3, b'\\xff\\n')\nos._exit(0)", CALL),
    ("def f(n): return [n, 'x'] if n == 2 else None", ASSERTS),  # a list is not the tuple asserted
    ("def g(x): return True", {"inputs": [[1]], "outputs": [1], "fn_name": "g"}),
    ("def g(x): return x", {"inputs": [[1]], "outputs": [True], "fn_name": "g"}),
]


@pytest.mark.parametrize(("code", "reference"), RIGHT)
def test_right_solutions(code, reference):
    assert accuracy(code, reference) == 1.0


@pytest.mark.parametrize(("code", "reference"), WRONG)
def test_wrong_solutions(code, reference):
    assert accuracy(code, reference) == 0.0


def test_an_endless_solution_ends_at_its_time_limit():
    suite = general_code.prepare(json.dumps({**STDIN, "time_limit_seconds": 0.5}), {})
    verdict = general_code.verify("while True: pass", suite, {})
    assert (verdict.accuracy, verdict.status, verdict.parts["tests_passed"]) == (0.0, "timeout", 0.0)


def test_the_share_of_passed_tests_is_a_part_only():
    verdict = general_code.verify("print(5)", general_code.prepare(json.dumps(STDIN), {}), {})
    assert (verdict.accuracy, verdict.parts["tests_passed"]) == (0.0, 0.5)


def test_a_long_solution_is_refused_unread():
    assert general_code.verify("#" * 200_000, read_suite(json.dumps(STDIN)), {}).status == "rejected"


@pytest.mark.parametrize(
    "reference",
    [
        "", "nonsense", "3", "[]", "{}", '{"tests": []}', '{"inputs": [1], "outputs": []}', '{"tests": [3]}',
        '{"tests": [{"stdin": "1"}]}', '{"tests": [{"stdin": 1, "stdout": "1"}]}', "assert f(1) == x",
        "assert 1 < f(1) < 2",
        '{"tests": [{"call": "f", "args": 3, "expected": 1}]}', "assert f(1) > 2",
        "assert all(f(i) == i for i in range(3))", "assert isclose(f(2), 1.41)", "assert math.isclose(f(2), 1.4)",
        "assert abs(f(2) - 1.4) < 1e-3", "assert f(1) or f(2)", "assert f(1) == 1 and 2 in f(2)",
        "assert f('x').isdigit()", "assert isinstance(f(2), int)", "assert (f(2) == 3) == True",
        "assert (f(2) == 3) is False", "assert not f(2) == 3",
        "assert bool(f(2))", "assert [f(2)]", "assert f(2) if f(1) else 0", "assert f", "assert (lambda: f(2) == 3)()",
        '{"tests": [["1", "2", "3"]]}', '{"inputs": [[1, 2]], "outputs": [[3]]}',
        '{"tests": ["assert f(1) == 2"], "time_limit_seconds": 0}',
        '{"tests": ["assert f(1) == 2"], "float_tolerance": "x"}', '["f(1) == 2"]',
    ],
)  # fmt: skip
def test_an_unusable_reference_is_our_error(reference):
    with pytest.raises(ValueError):  # noqa: PT011 the message differs with the fault; its type is the contract
        read_suite(reference)


def test_expected_values_stay_outside_the_sandbox():
    for reference in (json.dumps(STDIN), json.dumps(CALL), ASSERTS):
        for test in read_suite(reference).tests:
            assert not {"stdout", "expected", "output"} & test.request.keys()
    assert read_suite("assert f(2) == 'sesame'").tests[0].request == {"expression": "f(2)"}


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1.0, True), (1.0, 1, True), (True, 1, False), (1, True, False), (0.1 + 0.2, 0.3, True), (0.301, 0.3, False),
        ((1, 2), [1, 2], True), ([1, 2], (1, 2), False), ([1], [1, 1], False), ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1}, {"b": 1}, False), ({1, 2}, {2, 1}, True), ([1, 2], {1, 2}, False),
        (None, None, True), (None, 0, False),
        ("1", 1, False), (float("nan"), float("nan"), True), (float("inf"), 1.0, False), ([[0.3]], [[0.1 + 0.2]], True),
    ],
)  # fmt: skip
def test_equality(got, expected, same):
    assert equal(got, expected, 1e-9) is same


@pytest.mark.parametrize(
    "encoded", [["other", "E"], ["int", "zz"], 3, ["list", 4], [], ["dict", [[["list", []], ["int", "0x1"]]]]]
)
def test_records_that_are_not_plain_data(encoded):
    with pytest.raises((ValueError, TypeError)):
        decode(encoded)
