"""Read the one number of a short Chinese answer: "图中有5只猫", "约3.14", "一共七人", "3.5万元", "百分之五十"."""

import re
from fractions import Fraction

from reward.reading.number_words import ZH_RUN, ZH_SCALES, chinese_number
from reward.reading.numbers import parse_literal

_DIGITS = re.compile(
    r"(?<![\d.,A-Za-z])[-+]?(?:\d[\d,]*+(?:\.\d++)?|\.\d++)(?: ?/ ?\d++)?+(?![A-Za-z_])", re.ASCII
)
_CHINESE = re.compile("[\u4e00-\u9fff]")
_AMOUNT_BEFORE = re.compile(  # what may stand before a number written in Chinese numerals
    r"(?:图中|图片中|图里|图像中|画面中|照片中|这里|上面|其中|里面|一共|总共|合计|总计|共计|共|有|是|为|等于|大约|大概|约|:|只|仅|恰好|正好|就|显示|"
    r"可以看到|看到|数量|个数|人数|总数|的|负|,|百分之|出现了|包含|了)*+"
)
_REFUSED_BEFORE = re.compile(
    "不|非|没|无|至少|至多|最多|最少|超过|大于|小于|多于|少于|低于|高于|接近|将近|第|可能|也许|或|除|月|从|未|题|步|页|章|表$|图$|选项|[?？]"
)
_REFUSED_AFTER = re.compile(
    "不|非|没|无|以上|以下|或|到|至|和|与|及|月|号|日(?!元)|点|分之|负|减|加|乘|除|倍|半|多|几|余|可能|也许|之间|题|错|吗|来|第|[?？、~]|(?<!小)时|以内"
)
_TAIL = re.compile(r" ?+(?:[\u4e00-\u9fff]|[A-Za-z°²³/%·^]|[(): ,，。]|\d(?<=[\^]\d))*+[。.!]?+")


def chinese_quantity(text: str) -> tuple[Fraction, bool] | None:  # noqa: PLR0911, PLR0912 - a grammar in order
    """(value, percent) of a normalised text with Chinese in it that holds exactly one number, else None."""
    if len(text) > 120 or not _CHINESE.search(text):
        return None
    numbers = list(_DIGITS.finditer(text))
    if len(numbers) > 1:
        return None
    if numbers:
        start, end = numbers[0].span()
        value = parse_literal(numbers[0].group().replace(" ", ""))
    else:
        start = _AMOUNT_BEFORE.match(text).end()
        run = ZH_RUN.match(text, start)
        if (
            run is None and text[:1] == "一"
        ):  # the run may begin with the 一 of 一共, which was taken as words
            return None
        if run is None:
            return None
        end, value = run.end(), chinese_number(run.group())
    if value is None:
        return None
    before, after = text[:start], text[end:].strip()
    if _REFUSED_BEFORE.search(before) or not _plain_words(before):
        return None
    percent = False
    if before.endswith("百分之"):
        percent = True
    if before.endswith(("负", "零下")):
        value = -value
    if after[:1] in ZH_SCALES and numbers:
        value, after = value * ZH_SCALES[after[0]], after[1:]
        if after[:1] in ZH_SCALES:
            value, after = value * ZH_SCALES[after[0]], after[1:]
    if after.startswith("%"):
        percent, after = True, after[1:]
    if _REFUSED_AFTER.search(after) or not _TAIL.fullmatch(after):
        return None
    return value, percent


def _plain_words(text: str) -> bool:
    return all("\u4e00" <= char <= "\u9fff" or char.isalpha() or char in " :=,，。()≈" for char in text)
