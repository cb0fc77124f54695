"""Chinese dates, times, amounts and codes, read in characters."""

from __future__ import annotations

import regex

from light_tts.encode.normalise import chinese_words as words
from light_tts.encode.normalise.numbers import chinese_cardinal, chinese_digits, chinese_number
from light_tts.encode.normalise.rules import NUMBER, START, Reader, Rule, alternatives

_DASH = r"\s?(?:[-–—~～]+|至|到)\s?"
_YEAR = r"(?:1[0-9]|20|21)[0-9]{2}"
_RANGE = rf"(?:(?P<low>{NUMBER}){_DASH})?(?P<high>{NUMBER})"
_CURRENCY = alternatives(words.CURRENCIES)
_MAGNITUDE = r"(?P<magnitude>[万亿千百]+)?"
_FREE = r"(?<![\p{Latin}0-9.,/-])"
_CODE_END = r"(?![\p{Latin}0-9-])"
_HOUR, _MINUTE = "(?:[01]?[0-9]|2[0-4])", "[0-5][0-9]"


def spell(digits: str) -> str:
    """Digits as on the telephone: 幺 for 1."""
    return chinese_digits(digits, one="幺")


def _groups(match: regex.Match[str]) -> str:
    plus = "加" if match[0].startswith("+") else ""
    return plus + "，".join(spell(group) for group in regex.findall(r"[0-9]+", match[0]))


def _amount(match: regex.Match[str], counted: bool = True) -> str:
    low = f"{chinese_number(match['low'], counted)}到" if match["low"] else ""
    return low + chinese_number(match["high"], counted)


def _full_date(match: regex.Match[str]) -> str:
    month, day = chinese_cardinal(int(match["month"])), chinese_cardinal(int(match["day"]))
    return f"{chinese_digits(match['year'])}年{month}月{day}日"


def _month_day(match: regex.Match[str]) -> str:
    day = chinese_cardinal(int(match[2])) if match[2] else ""
    return f"{chinese_cardinal(int(match[1]))}月{day}"


def _clock(hour: str, minute: str, second: str | None = None) -> str:
    hours = "两" if int(hour) == 2 else chinese_cardinal(int(hour))
    if int(minute) == 0 and second is None:
        return f"{hours}点"
    minutes = ("零" if int(minute) < 10 and int(minute) else "") + chinese_cardinal(int(minute))
    return f"{hours}点{minutes}分" + (f"{chinese_cardinal(int(second))}秒" if second is not None else "")


def _time(match: regex.Match[str]) -> str:
    return _clock(match["hour"], match["minute"], match["second"])


def _money(match: regex.Match[str]) -> str:
    unit = words.CURRENCIES[match["currency"]]
    if match["said"] and match["said"] != unit:
        unit = (
            match["said"]
            if (unit, match["said"]) in (("元", "块钱"), ("美元", "美金"))
            else unit + match["said"]
        )
    high = regex.sub(r"\.00$", "", match["high"])
    low = f"{chinese_number(match['low'], True)}到" if match["low"] else ""
    return f"{low}{chinese_number(high, True)}{match['magnitude'] or ''}{unit}"


def _percent(match: regex.Match[str]) -> str:
    of = "千分之" if match["sign"] == "‰" else "百分之"
    minus = "负" if match["minus"] else ""
    if not match["low"]:
        return f"{minus}{of}{chinese_number(match['high'])}"
    again = of if match["inner"] else ""
    return f"{minus}{of}{chinese_number(match['low'])}到{again}{chinese_number(match['high'])}"


def _unit(match: regex.Match[str]) -> str | None:
    unit = match["unit"]
    if match["space"] and unit in words.ONLY_GLUED and "." not in match["high"]:
        return None
    minus = ("零下" if unit.startswith("°") else "负") if match["minus"] else ""
    return f"{minus}{_amount(match)}{words.UNITS[unit]}"


def _years(match: regex.Match[str]) -> str | None:
    if int(match[1]) >= int(match[2]):
        return None
    return f"{chinese_digits(match[1])}到{chinese_digits(match[2])}"


def _between(word: str) -> Reader:
    """Both numbers of a match with a word between them."""
    return lambda match: f"{chinese_cardinal(int(match[1]))}{word}{chinese_cardinal(int(match[2]))}"


def _digits(match: regex.Match[str]) -> str:
    return chinese_digits(match[1])


CODES = (
    Rule(
        rf"{_FREE}(?:\+?86[ -]?)?1[3-9][0-9]{{9}}(?![.-]*[0-9])",
        lambda match: ("加" if match[0][0] == "+" else "") + spell(regex.sub(r"\D", "", match[0])),
    ),
    Rule(rf"{_FREE}(?:\+?86[ -]?)?1[3-9][0-9][ -][0-9]{{4}}[ -][0-9]{{4}}{_CODE_END}", _groups),
    Rule(
        rf"{_FREE}(?:[(（]0[0-9]{{2,3}}[)）]|(?:\+86[ -]?)?0[0-9]{{2,3}}[ -])"
        rf"[0-9]{{3,4}}-?[0-9]{{4}}(?:-[0-9]{{1,4}})?{_CODE_END}",
        _groups,
    ),
    Rule(rf"{_FREE}\+[0-9]{{1,3}}(?:[ -]\(?[0-9]{{2,5}}\)?){{2,6}}{_CODE_END}", _groups),
    Rule(
        r"(?<=[零幺二三四五六七八九])\s?(?:转|分机)\s?\K[0-9]{1,6}(?![0-9.度°圈])",
        lambda match: spell(match[0]),
        spaced=False,
    ),
    Rule(rf"{_FREE}[48]00[ -][0-9]{{3,4}}[ -][0-9]{{3,4}}{_CODE_END}", _groups),
    Rule(
        rf"{alternatives(words.DIGIT_CONTEXTS)}(?:号码|号)?[是为：:\s]{{0,4}}\K([A-Za-z]*)([0-9]{{3,}}+)"
        r"(?![0-9.,:：%-]*[0-9]|[多几余]?[个元块万亿次人台位])",
        lambda match: match[1] + spell(match[2]),
    ),
    Rule(
        r"([GDCZTKYLgdcztk])([0-9]{1,4})(?=次|列车|高铁|动车|号车|车次)",
        lambda match: match[1] + spell(match[2]),
    ),
    Rule(
        r"(?<![\p{Latin}0-9.])([0-9]{3,4})(?=室|号?房|号?包间|路(?!程)|国道)", lambda match: spell(match[1])
    ),
    Rule(
        rf"(?<![\p{{Latin}}0-9.]){alternatives(words.SHORT_CODES)}"
        r"(?=工作制|高校|院校|大学|工程|晚会|大促|购物节|热线|客服|网站|官网|投诉|举报)",
        lambda match: chinese_digits(match[0]),
    ),
    Rule(
        r"(?<![\p{Latin}0-9.])(?:[48]00(?=电话|热线|客服)|(?:110|119|120|122|114)(?=报警|急救|指挥|火警|查号|电话|热线|中心))"
        r"|(?<=打|拨|叫|呼|报)(?:110|119|120|122|114|12[0-9]{3}|95[0-9]{3})(?![0-9.]|[个元块])"
        r"|(?<![\p{Latin}0-9.])(?:12306|12315|10086|10010)(?![0-9.,]|\s?[个元块人次万亿])",
        lambda match: spell(match[0]),
    ),
)

DATES = (
    Rule(
        r"(?<![0-9.])(1[0-2]|[1-9])\s?[-–—~～]\s?(1[0-2]|[1-9])(?=\s?月(?!饼))",
        _between("到"),
    ),
    Rule(r"(?<=[0-9]\p{Han}{1,2})(?<![的是为在到比和负约达了于])\s?[-–~～]\s?(?=[0-9])", "到", spaced=False),
    Rule(r"(?<=周[一二三四五六日天]|[0-9]°?[C度])\s?[-–~～]\s?(?=周|零[上下])", "到", spaced=False),
    Rule(r"(?<=[0-9]\s?(?:\p{Han}{1,3}|[A-Za-z]{0,3}))/(?=\p{Han})", "每", spaced=False),
    Rule(r"(?<![0-9.])(1[0-2]|[1-9])/([0-9]{1,2})(?=[日号])", _between("月")),
    Rule(
        rf"(?<![0-9.])({_YEAR})(?=届|级(?!别)|款|版|\p{{Han}}{{0,4}}(?:奥运|世界杯|亚运|世博|春晚|春节))",
        _digits,
    ),
    Rule(
        rf"(?<![0-9.])({_YEAR})/([0-9]{{2}})(?=赛季|年度|财年|学年)",
        lambda match: chinese_digits(match[1]) + chinese_digits(match[2]),
    ),
    Rule(rf"(?<=《)({_YEAR})(?![0-9,.]|年)", _digits),
    Rule(r"(?<=[0-9][秒米])([0-9]{2})(?![0-9.]|[个分秒米])", _digits),
    Rule(
        rf"{START}(?P<year>{_YEAR})(?P<dash>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=dash)"
        r"(?P<day>0?[1-9]|[12][0-9]|3[01])(?![0-9]|[./-][0-9])日?",
        _full_date,
    ),
    Rule(
        rf"{START}(?P<year>{_YEAR})-(?P<month>0[1-9]|1[0-2])(?![0-9-]|\.[0-9]|年)",
        lambda match: f"{chinese_digits(match['year'])}年{chinese_cardinal(int(match['month']))}月",
    ),
    Rule(rf"(?<![0-9.])({_YEAR}){_DASH}({_YEAR})(?=\s?年)", _years),
    Rule(rf"{START}({_YEAR})\s?[-–—~～]\s?({_YEAR})(?![.%-]*[0-9]|[\p{{Latin}}元个人])", _years),
    Rule(
        r"(?<![0-9.])(?!1000|2000)((?:1[0-9]|2[01])[0-9]{2})\s?(?=年(?!级))",
        _digits,
        spaced=False,
    ),
    Rule(
        r"(?<![0-9.])(1000|2000)\s?(?=年(?!级|前|后|历史|的历史|来|多|以上|之久))",
        _digits,
        spaced=False,
    ),
    Rule(
        r"(?<![\p{Latin}0-9.])(1[1-9][0-9]0|20[0-9]0)(?:'?s\b|(?=\s?年代))",
        lambda match: chinese_digits(match[1]) + ("年代" if match[0][-1] == "s" else ""),
    ),
    Rule(
        r"(?<![0-9.])([6-9][05]|0[05])(?=后(?!面|来|天|方|边|期))",  # those born in the nineties
        _digits,
    ),
    Rule(
        r"(?<![0-9.])(1[0-2]|0?[1-9])\s?月\s?(?:(3[01]|[12][0-9]|0?[1-9])(?=\s?[日号]))?(?!份额)", _month_day
    ),
    Rule(
        r"(?<=比分|以|总分)(?:[是为：:]\s?)?\K([0-9]{1,3})\s?[:：\-–比]\s?([0-9]{1,3})(?![0-9:：])",
        _between("比"),
    ),
    Rule(
        rf"(?<![0-9][:：])(?<![\p{{Latin}}0-9./-])({_HOUR})[:：]({_MINUTE}){_DASH}({_HOUR})[:：]({_MINUTE})(?![0-9:：])",
        lambda match: f"{_clock(match[1], match[2])}到{_clock(match[3], match[4])}",
    ),
    Rule(
        rf"(?<![0-9][:：])(?<![0-9./])(?P<hour>{_HOUR})[:：](?P<minute>{_MINUTE})(?:[:：](?P<second>{_MINUTE}))?"
        r"(?![0-9:：])",
        _time,
    ),
    Rule(
        r"(?<![0-9.])([0-9]{1,2})点(0[1-9])(?=分)",
        lambda match: f"{_clock(match[1], match[2]).removesuffix('分')}",
    ),
    Rule(
        r"(?<![0-9.:：])([0-9]{1,6})\s?[:：]\s?([0-9]{1,6})(?![0-9:：])",
        _between("比"),
    ),
)

AMOUNTS = (
    Rule(
        r"(?<![\p{Latin}0-9)%‰°])([±≥≤><≈~～])\s?(?=-?[0-9¥￥$€£])",
        lambda match: words.SIGNS_BEFORE[match[1]],
        spaced=False,
    ),
    Rule(
        r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)\.00(?=\s?(?:元|块|美元|欧元|英镑|人民币|港币))",
        lambda match: chinese_number(match[1], counted=True),
    ),
    Rule(
        rf"(?<!\p{{Latin}})(?P<currency>{_CURRENCY})\s?(?:(?P<low>{NUMBER}){_DASH}{_CURRENCY}?)?(?P<high>{NUMBER})"
        rf"\s?{_MAGNITUDE}(?P<said>元|块钱|美元|美金|欧元|英镑|港元|日元)?",
        _money,
    ),
    Rule(
        rf"(?<![\p{{Latin}}0-9.,]){_RANGE}\s?{_MAGNITUDE}(?P<currency>{_CURRENCY})(?P<said>)(?![\p{{Latin}}0-9])",
        _money,
    ),
    Rule(
        rf"(?<![\p{{Latin}}0-9.,])(?P<minus>-)?(?:(?P<low>{NUMBER})(?P<inner>[%‰])?{_DASH})?(?P<high>{NUMBER})\s?"
        r"(?P<sign>[%‰])",
        _percent,
    ),
    Rule(
        rf"(?<![\p{{Latin}}0-9.,/])(?P<minus>-)?{_RANGE}(?P<space>\s?)(?P<unit>{alternatives(words.UNITS)})"
        r"(?![\p{Latin}0-9°²³/])",
        _unit,
    ),
)
