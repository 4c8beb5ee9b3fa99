# ruff: noqa: E501 - the case tables read better unwrapped
"""Answers as models write them: with labels, markdown, an explanation, in Chinese, in full width. A line break is \\n."""

import pytest

from reward.score import score_local
from reward.verifiers.boolean import polarity
from reward.verifiers.multiple_choice import affirmed_letters


def table(text):
    return [case.replace("\\n", "\n") for case in text.strip().replace("\n", "|").split("|")]


def accuracy(answer, reference, answer_type, **spec):
    return score_local(f"<answer>{answer}</answer>", reference, answer_type, spec=spec).parts["accuracy"]


YES = r"""
是|是的|是。|对|对的|正确|正确。|真|Ｙｅｓ|没错|答案是：是|答案：对|这个说法是正确的|该陈述正确|Yes, there are no people in the image.|Yes, no doubt.
Yes. There is no dog, only a cat.|Yes - the chart shows it|**Answer:** Yes|**Yes**, the cat is black.|Answer: Yes.
Final answer: true|The answer is yes.|The final answer is True.|Yes\nThe bar is higher.|Yes; it does not rain.
The cat is on the left, so the answer is yes.|The cat is left. Therefore, the answer is yes
Yes, the man is either walking or running.|是的，图中有一只猫。|对，因为两者相等。|Yes! It is.|yes, because nobody is there|Yes, it is true.
It is true|true, since 5 is not even|Yes, it isn't false.|Yes: both are red|根据图片，答案是是|That's true.
Based on the image, the answer is yes.|因此，答案是对
"""
NO = r"""
否|不是|不对|错|错误|错误。|不正确|假|没有|No, it is either red or blue.|No, there are no dogs.|No. The sign says stop, not yield.|No, it is not.
No\nThere are two.|**No**, it isn't|答案是否|答案：错误|不是，图中没有狗。|No, the man is not wearing a hat or a cap.|False. The sum is 5
no, neither of them|Answer: **No**|The answer is: no|No - it's blue|No, because the statement is not true.|Ｎｏ|该说法错误|no, not at all
"""
NEITHER = r"""
yes or no|Yes. No.|no, yes|Yes, no|yes and no|yes/no|Yes, maybe|Yes, but no|yes, or no|Yes, if it rains|是或否|是否|不确定|可能是|是，不是|对错
maybe yes|no doubt|No doubt.|no, wait, yes|Yes? No|yes?|Yes, that is false|No, the statement is true
Yes, the statement is not true|true or false|not sure, yes|不知道|是还是不是|Yes, possibly|no one|nothing|是吗|也许|无法确定|Yes; answer is no
Yes. The answer is no.|The answer is not yes|The answer is neither yes nor no|yes no|I don't think the answer is yes
no, it is true|正确或错误|no yes|correct|wrong|Yes, no, yes
"""


@pytest.mark.parametrize("text", table(YES))
def test_yes(text):
    assert polarity(text) is True


@pytest.mark.parametrize("text", table(NO))
def test_no(text):
    assert polarity(text) is False


@pytest.mark.parametrize("text", table(NEITHER))
def test_neither_or_both(text):
    assert polarity(text) is None


CHOOSES_B = r"""
选B|故选B。|故选：B|选项B|选择B|【答案】B|答案：B|答案:B|答案是B|答案是 B。|答案为B|答案为（B）|答案选B|正确答案是B|正确选项是B|所以选B|因此，答案是B。|应选B|我选B|我选择B|B选项|B项|B选项正确|B是正确的|B正确
B、12厘米|B．12厘米|B。12厘米|B：12厘米|（B）12厘米|（B）|Ｂ|【Ｂ】|B，因为它更长|B，图中显示为12|答：B|综上所述，选B。|B) both A and C|B. Both A and C|B) neither A nor C
B. A and C only|B) all of A, C and D|Based on the image, the answer is B.|I'd say B|I’d say B|I'd go with B|I would go with B.
I believe it is B|I believe the answer is B|I think the answer is B|I'll choose B|I will pick (B)|**Answer:** B|**Answer: B**
Answer: **B**|Final Answer: B|**Final Answer**: B|### Answer\nB|Final answer: (B) 12 cm|The answer to the question is B.
The correct choice is B|The correct answer would be B.|The right option is B: 12 cm|B.\n\nExplanation: the bar is taller.
B\nThe chart shows that it rises.|B. The bar is taller than the others.|The bar for 2010 is tallest. The answer is B.
The line is at 12, so the answer is B|We compare the two. Therefore, the correct answer is (B).
According to the chart, the answer is B|A is 10 cm long. So the answer is B.|Looking at the picture, the correct option is B
Hence, option B is correct.|Option B is the correct answer.|It must be B|It should be (B).|That's B|the letter B|B ✓|B. vitamin C
B. Hepatitis C. It is severe|B) Type A|B. Point C|B) False|B. No|B) Not visible|Ans: B|Ans. B|Response: B|B: 5 N. m
\textbf{Answer: B}|$\mathbf{B}$|\(B\)|\text{B. }12|B }|[B]|<B>|B is right|B is the best answer|The solution is B|根据图像，答案是B
观察图片可知，答案为B|所以正确答案是：B
"""
DOES_NOT_CHOOSE = r"""
A. 10 cm B. 12 cm C. 14 cm D. 16 cm|A - Red B - Blue|B. 12 C. 14|B) 12 cm C) 14 cm|B: red, C: blue|B: red C: blue|B、红 C、蓝
B (incorrect)|B (wrong)|B [incorrect]|B (is wrong)|B (not correct)|(B) (incorrect)|B) (false)|B ✗|B ❌|B - wrong|B is wrong
B is ruled out|B (ruled out)|B, which is wrong|不选B|B错误|B不正确|B是错误的|B不对|B选项错误|B或C|A、B|A和B|选A和B|B吗|可能是B|选B或C|不是B|答案不是B|B还是C|排除B|B项有误
I don't think the answer is B|The answer is not B.|The answer can't be B|I'd not say B|It's not B|I doubt the answer is B
If it rains the answer is B|Is the answer B?|The answer is B or C|The answer is B. The answer is C.|C. So the answer is B
B. The answer is C|B) both B and C|B and C only|Both B and C are correct|None of the above|all of the above|not option B
Option B or C|A (B)|A = B|B = C|B → C|B > C|B vs C|The answer could be B|maybe the answer is B|The answer is maybe B
A. 10 cm\nB. 12 cm|(A) red (B) blue|A) red B) blue|1. B 2. C|B, C and D|Answer: A. B|B (eliminated)|B (not the answer)
B: incorrect|B: not correct|B (no)|答案是B或C|答案可能是B|B、C|图B|Figure B|Vitamin B|B.C.|B612|b-side
"""


@pytest.mark.parametrize("text", table(CHOOSES_B))
def test_chooses_b(text):
    assert affirmed_letters(text, {}) == {"B"}


@pytest.mark.parametrize("text", table(DOES_NOT_CHOOSE))
def test_chooses_neither_a_nor_b(text):
    assert affirmed_letters(text, {}) not in ({"A"}, {"B"})


@pytest.mark.parametrize(
    ("text", "letters"),
    [("A和C", "AC"), ("A、C", "AC"), ("选A和C", "AC"), ("答案是AC", "AC"), ("ＡＣ", "AC"), ("故选AC。", "AC"), ("**A, C**", "AC"),
     ("The correct answers are A and C.", "AC"), ("A、C、D", "ACD"), ("A, C, and D", "ACD")],
)  # fmt: skip
def test_several_letters(text, letters):
    assert affirmed_letters(text, {}) == set(letters)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("don't", "don’t", 1),
     ("don’t", "don't", 1),
     ("**Answer:** Paris", "Paris", 1),
     ("Answer: Paris", "paris", 1),
     ("The answer is Paris.", "Paris", 1),
     ("**Paris**", "Paris", 1),
     ("答案：巴黎", "巴黎", 1),
     ("答案是巴黎。", "巴黎", 1),
     ("巴黎。", "巴黎", 1),
     ("【答案】巴黎", "巴黎", 1),
     ("Ｐａｒｉｓ", "Paris", 1),
     ("“Paris”", "Paris", 1),
     ("Paris, because it is the capital", "Paris", 1),
     ("It is the capital of France, so the answer is Paris.", "Paris", 1),
     ("Final Answer: Paris", "Paris", 1),
     ("### Paris", "Paris", 1),
     ("Paris – Lyon", "Paris - Lyon", 1),
     ("Answer: Paris", "Answer: Paris", 1),
     ("Paris", "Answer: Paris", 0),
     ("The answer is not Paris", "Paris", 0),
     ("The answer is Paris or London", "Paris", 0),
     ("London. The answer is Rome", "London", 0),
     ("Answer: London", "Paris", 0),
     ("Not Paris because", "Paris", 0),
     ("-5", "5", 0),
     ("Final", "Paris", 0),
     ("(A)", "A", 1),
     ("《红楼梦》", "红楼梦", 1),
     ("红楼梦", "《红楼梦》", 1),
     ("5 – 3", "5 - 3", 1)],
)  # fmt: skip
def test_texts(answer, reference, expected):
    assert accuracy(answer, reference, "any") == expected
    assert accuracy(answer, reference, "critic") == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("The text reads: Hello World","Hello World",1),
     ('The sign says "STOP"',"STOP",1),
     ('"STOP"',"STOP",1),
     ("Text: STOP","STOP",1),
     ("Answer: STOP","STOP",1),
     ("**Answer:** STOP","STOP",1),
     ("ＳＴＯＰ","STOP",1),
     ("文字：停车","停车",1),
     ("don’t walk","Don't walk",1),
     ("答案：停车","停车",1),
     ("Text: STOP","Text: STOP",1),
     ("“停车”","停车",1),
     ("STOP","GO",0)],
)  # fmt: skip
def test_read_texts(answer, reference, expected):
    assert accuracy(answer, reference, "ocrtext") == expected


ONE_BOX = r"""
x1: 100, y1: 200, x2: 300, y2: 400|x1=100, y1=200, x2=300, y2=400|x1 = 100; y1 = 200; x2 = 300; y2 = 400
(x1=100, y1=200, x2=300, y2=400)|[x1: 100, y1: 200, x2: 300, y2: 400]|{"x1": 100, "y1": 200, "x2": 300, "y2": 400}
{x1: 100, y1: 200, x2: 300, y2: 400}|xmin: 100, ymin: 200, xmax: 300, ymax: 400|left: 100, top: 200, right: 300, bottom: 400
<box>100 200 300 400</box>|<box>(100,200),(300,400)</box>|(100, 200) to (300, 400)|top-left (100, 200), bottom-right (300, 400)
Top left: (100, 200); bottom right: (300, 400)|100, 200, 300, 400|100 200 300 400|[100,200,300,400]|[100.0, 200.0, 300.0, 400.0]
```json\n{"bbox_2d": [100, 200, 300, 400], "label": "cat"}\n```|**[100, 200, 300, 400]**|Answer: [100, 200, 300, 400]
The bounding box is [100, 200, 300, 400].|bbox: 100, 200, 300, 400|［100，200，300，400］|答案：[100, 200, 300, 400]
左上角(100,200)，右下角(300,400)|[[100, 200], [300, 400]]|[[100, 200, 300, 400]]|"100, 200, 300, 400"|['100', '200', '300', '400']
[100px, 200px, 300px, 400px]|$[100, 200, 300, 400]$|x_min=100, y_min=200, x_max=300, y_max=400
{"bbox": {"x1": 100, "y1": 200, "x2": 300, "y2": 400}}|x1:100\ny1:200\nx2:300\ny2:400|【100，200，300，400】|[100、200、300、400]
{"box": [100,200,300,400]}|x: 100, y: 200, width: 200, height: 200|{"x": 100, "y": 200, "width": 200, "height": 200}
y1: 200, x1: 100, y2: 400, x2: 300|<bbox>[100, 200, 300, 400]</bbox>|The answer is (100, 200, 300, 400)
\left[100, 200, 300, 400\right]|{"xmin": 100, "ymin": 200, "xmax": 300, "ymax": 400}|x1 100 y1 200 x2 300 y2 400
"""
NO_SUCH_BOX = """
[300, 400, 100, 200]|x1: 300, y1: 400, x2: 100, y2: 200|[100, 200, 300]|[100, 200, 300, 400, 500]|x1: 100, y1: 200, x2: 300
[0,0,0,0]|nan|100|no box|[500,500,600,600]|x1: 500, y1: 600, x2: 700, y2: 800|100, 200, 300, 400, 500, 600, 700, 800, 900
"""


@pytest.mark.parametrize("answer", table(ONE_BOX))
def test_box_forms(answer):
    assert accuracy(answer, "[100, 200, 300, 400]", "bbox") == 1


@pytest.mark.parametrize("answer", table(NO_SUCH_BOX))
def test_no_such_box(answer):
    assert accuracy(answer, "[100, 200, 300, 400]", "bbox") == 0


@pytest.mark.parametrize(
    ("one", "other", "scale"), [("permille", "normalized", 1000), ("normalized", "permille", 0.001)]
)
def test_normalized_and_permille_need_no_image_size(one, other, scale):
    wanted = [0.1, 0.2, 0.3, 0.4] if scale > 1 else [100, 200, 300, 400]
    given, wrong = str([n * scale for n in wanted]), str([n * scale * 1.9 for n in wanted])
    spec = {"coordinates": one, "reference_coordinates": other}
    for answer_type in ("bbox", "detection"):
        assert accuracy(given, str(wanted), answer_type, **spec) == pytest.approx(1)
        assert accuracy(wrong, str(wanted), answer_type, **spec) < 0.2


@pytest.mark.parametrize(
    ("answer", "reference", "answer_type", "expected"),
    [("5", 5, "number", 1), ("6", 5, "number", 0), ("6", [5, 6], "number", 1), ("0.5", 0.5, "number", 1), ("yes", True, "boolean", 1),
     ("no", True, "boolean", 0), ("no", False, "boolean", 1), ("[1,2,3,4]", [1, 2, 3, 4], "bbox", 1), ("[1,2,3,4]", [[1, 2, 3, 4]], "bbox", 1),
     ("[[1,2,3,4],[5,6,7,8]]", [[1, 2, 3, 4], [5, 6, 7, 8]], "detection", 1), ("[1,2,3,4]", {"bbox_2d": [1, 2, 3, 4]}, "bbox", 1),
     ("5", 5, "math-expressions", 1), ("1, 2", [[1, 2]], "math-expressions", 1), ("1", [[1, 2]], "math-expressions", 0),
     ("C, A", [["A", "C"]], "multiple-choice", 1), ("A", [["A", "C"]], "multiple-choice", 0), ("true", True, "any", 1),
     ("false", True, "any", 0), ("12", 12, "ocrtext", 1)],
)  # fmt: skip
def test_references_may_be_json_values(answer, reference, answer_type, expected):
    assert accuracy(answer, reference, answer_type) == expected
