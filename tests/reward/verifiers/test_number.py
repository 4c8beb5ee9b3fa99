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


# with labels, sentences, words and in Chinese
READ |= {
    "The image shows 7 cars.":7,"₹1,00,000":100000,"Final answer: **7**":7,"**Answer:** 7":7,"**7**":7,"It shows 7":7,"Only 1":1,"Just 3":3,"Exactly 3":3,"3 (three)":3,"three (3)":3,"Population: 12,345":12345,
    "约3.14":Fraction("3.14"),"3个":3,"3 个":3,"答案是5":5,"答案：5":5,"12元":12,"图中有5只猫。":5,"一共7人":7,"共有12个苹果":12,"一共七人":7,"三十二":32,"五个":5,"３个":3,"１２．５":Fraction("12.5"),"约为100米":100,"3.5万":35000,"2亿":200000000,"50%":50,"百分之五十":50,"百分之20":20,"-5度":-5,"负5":-5,"零下5度":-5,"5小时":5,"5厘米":5,"12平方厘米":12,"答：5个。":5,"因此，答案是12。":12,"【答案】5":5,"总数为20":20,"面积为25平方米":25,"3/4":Fraction(3,4),"数量：8":8,"x=5，":5,"5。":5,"￥12":12,"¥12":12,"12块":12,"结果为-3":-3,"图片中有三只狗":3,"两个":2,"十二":12,"一百零五":105,"8本书":8,
    "There are seven cars.":7,"seven":7,"Seven.":7,"twenty one":21,"two hundred":200,"one hundred and five":105,"five million":5000000,"5 million people":5000000,"2 dozen":24,"7 hundredths":Fraction(7,100),"3 tenths":Fraction(3,10),"20K":20000,"20k":20000,"1.5B":1500000000,"$2.5M":2500000,"5 lakh":500000,
    "I can see 4 people in the image.":4,"I count 6 dogs.":6,"I counted 6.":6,"The total is 25":25,"The total cost is $25.50.":Fraction("25.5"),"The chart reads 12.5%":Fraction("12.5"),"Total: 8":8,"Total number of cars = 7":7,"Age: 25":25,"Answer: 12 apples":12,"There is only one cat":1,"There are exactly 3 dogs":3,"The sum of the angles is 180 degrees":180,"A total of 9":9,"The person holds 2 balloons.":2,"7, because there are seven cars.":7,"7. The cars are red.":7,"7\nThere are 3 red and 4 blue cars.":7,"7 cars, since each row has them":7,"The bars add to twelve, so the answer is 12.":12,"There are 3 red and 4 blue. So the answer is 7":7,"The sum is 7. The answer is 7.":7,"approximately 3.5":Fraction("3.5"),"about 100":100,"roughly 20 people":20,"$\\mathbf{7}$":7,"7.0":7,"**7** cars":7,"The area is 12 cm^2":12,"Width = 12 cm":12,"n=7":7,"equal to 7":7,"It equals 7.":7,"The answer is seven.":7,"The correct answer is 7":7,"Based on the chart, the value is 12.":12,"In the image, there are 4 birds.":4,"In total, there are 8":8,"12 %":12,"12 percent":12,"1,234.5 kg":Fraction("1234.5"),"Rs. 1,00,000":100000,"The number 7":7,"zero":0,

}  # fmt: skip
REFUSED += (
    r"""
5到7|5至7|5或6|不是5|至少5|最多5|超过5|5以上|第5|5月|5号|5点|5点30分|5、6|5和6|三到五|三分之一个|大于5|可能是5|3个或4个|一半|5多个|五六个|图5|5人和3人|5加3|5吗|2月3日|没有5|3~5|12:30
1、2、3|5倍多|不到5|第3题|Not 7 cars|The image does not show 7 cars|At least 7 cars|The image shows more than 7 cars
The image shows 7 or 8 cars|shows 7 and 8|Figure 7|Option 7|Table 3|Step 5|page 5|3 (four)|three (4)|3 (out of 5)|5 (not 6)|May 5
In May 5|between 5 and 7|Nearly 7|almost 7|Under 7|less than 7|up to 7|5 to 7|from 5 to 7|7, or maybe 8|7. Or 8.|7\n8|7. 8
5. 6 apples|7, wait, 8|7. No, 8|7? |The answer is not 7|I don't see 7 cars|There aren't 7 cars|It shows 7 of 10|7 out of 10
Question 7|1, 2, 3|first|the 5th|room 5|5 and a half|2 hundred million thousand|12,34|1,00,000,00|five or six|five six
twenty thirty|one two|hundred|one-two|seven-eleven|3:4|3 x 4|5 vs 6|7 million or 8|The sum is 7. The answer is 8.
7. The answer is 8.|8, because 3 + 4 = 7, no, 7|if 7|x > 7|x < 7|x ≠ 7|between 5 and 6 million|ten to twelve|0.5.6|5a|A: 5, B: 6
Width: 5, height: 6|Time: 12:30|Score: 5-3|I see five dogs and six cats
""".strip()
    .replace("\n", "|")
    .replace("\\n", "\n")
    .split("|")
)


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
