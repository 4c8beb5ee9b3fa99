"""From a mathematical answer as a model writes it to its mathematics: label, sentence, reason and markdown taken off.

"**Answer:** $5$" -> "$5$"    "The area is $12\\pi$ square cm." -> "12\\pi square cm"    "3和5" -> "3 and 5"
"""

import re

from reward.reading.labels import closing, folded_width, without_label
from reward.reading.numbers import parse_literal

_EMPHASIS = re.compile(r"(?<![\w)}\]])\*\*(?=\S)|(?<=\S)\*\*(?![\w({\\-])")
_HEADING = re.compile(r"#{1,6}+ ++")
_REASON = re.compile(r"[,.;]? ?+(?:\b(?:because|since)\b|因为)", re.IGNORECASE)
_PROSE_MATH = re.compile(r"(?P<lead>[^$]{0,200})\$(?P<body>[^$]{1,400})\$(?P<tail>[^$]{0,60})")
_PLAIN_LEAD = re.compile(r"[A-Za-z ,:'\u4e00-\u9fff-]*+")
_PLAIN_TAIL = re.compile(r" ?+[A-Za-z ./^\d²³°\u4e00-\u9fff]*+[.!]?+")
_DOUBT = re.compile(
    r"\b(?:not|or|if|no|never|neither|nor|and|than|least|most|between|cannot|maybe|perhaps|possibly|either|except|without)\b"
    r"|n't|不|非|没|或|至|约|可能",
    re.IGNORECASE,
)
_LEAD_ZH = re.compile(
    r"(?:解[:得]? ?+)?(?:[A-Za-z]{0,3}[\u4e00-\u9fff, ]{0,24}(?:是|为|等于|有|得|共|:)(?:约|大约)?+ ?+:?+"
    r"|[\u4e00-\u9fff]{0,4}约|\u89e3:|故|所以|因此|点[A-Z]?(?=\())(?=[^\u4e00-\u9fff])"
)
_UNITS_ZH = {
    "平方厘米": "cm^2",
    "平方米": "m^2", "平方千米": "km^2", "平方分米": "dm^2", "立方厘米": "cm^3", "立方米": "m^3", "厘米": "cm",
    "毫米": "mm", "分米": "dm", "千米": "km", "公里": "km", "米": "m", "千克": "kg", "公斤": "kg",
    "克": "g", "毫升": "mL",
    "升": "L", "小时": "h", "分钟": "min", "秒": "s", "度": "°", "弧度": "rad", "牛": "N", "牛顿": "N",
    "焦": "J", "焦耳": "J",
    "瓦": "W", "伏": "V", "安": "A", "欧": "Ω", "米/秒": "m/s", "千米/时": "km/h", "千米/小时": "km/h",
}  # fmt: skip
_COUNTED_ZH = frozenset(
    [
        "个",
        "人",
        "只",
        "元",
        "块",
        "岁",
        "天",
        "年",
        "次",
        "种",
        "本",
        "张",
        "条",
        "辆",
        "名",
        "位",
        "件",
        "支",
        "棵",
        "台",
        "页",
        "箱",
        "千米每小时",
        "米每秒",
        "元钱",
        "个人",
        "平方单位",
        "单位",
    ]
)
_UNIT_ZH = re.compile(r"(?<=[\w})°!]) ?+([\u4e00-\u9fff/]{1,6})$")
_BETWEEN_ZH = ((re.compile(" ?+(?:和|与|以及|及|且) ?+"), " and "), (re.compile(" ?+或者? ?+"), " or "))
_CHINESE = re.compile("[\u4e00-\u9fff]")


def mathematics(text: str) -> str:
    """The answer without what stands around it. Text that cannot be taken apart safely comes back as it is."""
    text = _EMPHASIS.sub(
        "", folded_width(text).replace("∶", ":").replace("`", "").replace("、", ", ")
    ).strip()
    heading = _HEADING.match(text)
    text = _without_end(without_label(text[heading.end() :] if heading else text))
    conclusion = closing(text)
    if conclusion is not None and conclusion[0].strip():
        before, after = (parse_literal(part.strip(" $.,;")) for part in conclusion)
        text = text if before is not None and before != after else _without_end(conclusion[1])
    reason = _REASON.search(text)
    if reason and reason.start() > 0:
        text = _without_end(text[: reason.start()])
    text = _out_of_sentence(text)
    return _from_chinese(text) if _CHINESE.search(text) else text


def _without_end(text: str) -> str:
    text = text.strip()
    ended = text.endswith("。") or (text.endswith(".") and not text.endswith(".."))
    return text[:-1].rstrip() if ended else text


def _out_of_sentence(text: str) -> str:
    """ "The area is $12\\pi$ square cm" -> "12\\pi square cm": one formula among plain words that do not doubt it."""
    match = _PROSE_MATH.fullmatch(text.replace("\\(", "$").replace("\\)", "$"))
    if match is None or not (match["lead"].strip() or match["tail"].strip()):
        return text
    if not _PLAIN_LEAD.fullmatch(match["lead"]) or not _PLAIN_TAIL.fullmatch(match["tail"]):
        return text
    if _DOUBT.search(match["lead"]) or _DOUBT.search(match["tail"]):
        return text
    return match["body"].strip() + (" " + match["tail"].strip() if match["tail"].strip() else "")


def _from_chinese(text: str) -> str:
    """Chinese connectives, units and introducing words as what the LaTeX reader knows; words stay words."""
    lead = _LEAD_ZH.match(text)
    if lead and not _DOUBT.search(lead.group().replace("约", "")):
        text = text[lead.end() :].strip()
    text = text.strip("$ ")
    for pattern, plain in _BETWEEN_ZH:
        text = pattern.sub(plain, text)
    unit = _UNIT_ZH.search(text)
    if unit and unit.group(1) in _UNITS_ZH:
        return text[: unit.start()] + " " + _UNITS_ZH[unit.group(1)]
    if unit and unit.group(1) in _COUNTED_ZH:
        return text[: unit.start()]
    return text
