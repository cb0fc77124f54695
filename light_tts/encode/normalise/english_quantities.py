"""English amounts, dates, times and telephone numbers, read in words."""

from __future__ import annotations

import regex

from light_tts.encode.normalise import english_words as words
from light_tts.encode.normalise.numbers import (
    english_cardinal,
    english_digits,
    english_number,
    english_ordinal,
    english_year,
)
from light_tts.encode.normalise.rules import NUMBER, RANGE, START, Rule, alternatives

_MONTH = rf"(?P<month>{alternatives(words.MONTH_BY_NAME)})"
_DAY = r"(?P<day>0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?(?![0-9])"
_DOT = r"(?:(?<=Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\.(?=,?\s[0-9a-z]))?"
_YEAR = r"(?P<year>1[0-9]{3}|20[0-9]{2})(?![0-9])"
_CURRENCY = alternatives(words.CURRENCIES)
_MAGNITUDE = (
    r"(?P<magnitude>\s(?:hundred|thousand|million|billion|trillion)|(?:bn|tn|[kKmMbBT])(?![\p{L}\p{N}]))?"
)


_ARTICLE = regex.compile(r"(?<!\p{L})[Aa]n?\s$")
_NOUN = regex.compile(
    r"\s(?!(?:or|and|per|a|an|in|on|at|to|for|each|the|of|is|was|if|by|with|as|from)\b)\p{L}"
)


def _sign(match: regex.Match[str]) -> str:
    return "minus " if match["sign"] else ""


def _amount(match: regex.Match[str]) -> str:
    """The number or range that RANGE has matched."""
    low = f"{english_number(match['low'])} to " if match["low"] else ""
    return low + english_number(match["high"])


def _is_one(match: regex.Match[str]) -> bool:
    """One of a thing, or a measure that describes one: "a 60 W bulb"."""
    return (match["low"] is None and match["high"] == "1") or _describes(match)


def _describes(match: regex.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 3) : match.start()]
    return _ARTICLE.search(before) is not None and _NOUN.match(match.string[match.end() :][:12]) is not None


def _digits(text: str) -> str:
    """Groups of digits one by one, with a pause between groups."""
    return ", ".join(english_digits(group) for group in regex.findall(r"[0-9]+", text))


def _spelled(match: regex.Match[str]) -> str:
    return _digits(match[0])


def _toll_free(match: regex.Match[str]) -> str:
    area, rest = match[1], match[2]
    area_words = f"{english_digits(area[0])} hundred" if area[1:] == "00" else english_digits(area)
    return f"one, {area_words}, {_digits(rest) if rest[0].isdigit() else rest}"


def _money(match: regex.Match[str]) -> str:
    one, many, part, parts = words.CURRENCIES[match["currency"]]
    magnitude = match["magnitude"] or ""
    if magnitude:
        name = words.MAGNITUDES.get(magnitude, magnitude.strip())
        return f"{_amount(match)} {name} {one if _describes(match) else many}"
    whole, _, cents = match["high"].replace(",", "").partition(".")
    if match["low"] or len(cents) != 2 or not part:
        return f"{_amount(match)} {one if _is_one(match) else many}"
    small = f"{english_cardinal(int(cents))} {part if int(cents) == 1 else parts}" if int(cents) else ""
    if not int(whole) and small:
        return small
    return f"{english_number(whole)} {one if whole == '1' or _describes(match) else many}" + (
        f" and {small}" if small else ""
    )


def _unit(match: regex.Match[str]) -> str | None:
    unit = match["unit"]
    if match["space"] and unit in words.ONLY_GLUED and "." not in match["high"]:
        return None
    one, many = words.UNITS[unit]
    return f"{_sign(match)}{_amount(match)} {one if _is_one(match) else many}"


def _date(match: regex.Match[str]) -> str:
    """Month and day, with the year if there is one: "March fifteenth, twenty twenty four"."""
    groups = match.groupdict()
    name = groups["month"]
    month = words.MONTHS[(int(name) if name.isdigit() else words.MONTH_BY_NAME[name]) - 1]
    year = f", {english_year(int(groups['year']))}" if groups.get("year") else ""
    return f"{month} {english_ordinal(int(groups['day']))}{year}"


def _day_first(match: regex.Match[str]) -> str:
    month = words.MONTHS[words.MONTH_BY_NAME[match["month"]] - 1]
    year = f", {english_year(int(match['year']))}" if match["year"] else ""
    return f"the {english_ordinal(int(match['day']))} of {month}{year}"


def _slashed_date(match: regex.Match[str]) -> str | None:
    """Month first as in the United States, unless that is impossible."""
    first, second = int(match[1]), int(match[2])
    month, day = (first, second) if first <= 12 else (second, first)
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return None
    return f"{words.MONTHS[month - 1]} {english_ordinal(day)}, {english_year(int(match[3]))}"


def _month_year(match: regex.Match[str]) -> str:
    month = words.MONTHS[words.MONTH_BY_NAME[match["month"]] - 1]
    return f"{month} {english_year(int(match['year']))}"


def _time(match: regex.Match[str]) -> str:
    hour, minute, second = int(match["hour"]), int(match["minute"]), match["second"]
    if second is not None and int(second):
        seconds = f"{english_cardinal(int(second))} seconds"
        return f"{english_cardinal(hour)} {_minutes(minute) or 'hundred'} and {seconds}"
    half = f" {match['half'][0].upper()} M" if match["half"] else ""
    if minute or half:
        return f"{english_cardinal(hour)} {_minutes(minute)}".strip() + half
    if hour == 0:
        return "midnight"
    return f"{english_cardinal(hour)} o'clock" if hour <= 12 else f"{english_cardinal(hour)} hundred"


def _minutes(minute: int) -> str:
    return f"{'oh ' if 0 < minute < 10 else ''}{english_cardinal(minute)}" if minute else ""


def _decade(match: regex.Match[str]) -> str:
    year = english_year(int(match[1]))
    return f"{year[:-1]}ies" if year.endswith("y") else f"{year}s"


def _short_decade(match: regex.Match[str]) -> str:
    return english_cardinal(int(match[1]))[:-1] + "ies"


PHONES = (
    Rule(rf"{START}1-(8[0-9]{{2}}|900)-([0-9]{{3}}-[0-9]{{4}}|[A-Z]{{4,8}})(?!\w)", _toll_free),
    Rule(
        rf"{START}\+[0-9]{{1,3}}(?:[ .-]?\(?[0-9]{{2,5}}\)?){{2,6}}(?![\w%])",
        lambda match: f"plus {_digits(match[0])}",
    ),
    Rule(
        r"(?<![\w.,/-])(?:1[ .-])?(?:\([0-9]{3}\)\s?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}(?![\w-]|\.[0-9])",
        _spelled,
    ),
    Rule(r"(?<![\w.,/-])[0-9]{3}-[0-9]{4}(?![\w-]|\.[0-9])", _spelled),
    Rule(r"(?<![\w.,/-])0[0-9]{2,4}[ -][0-9]{3,4}[ -][0-9]{3,4}(?![\w-])", _spelled),
    Rule(
        r"(?<![\w.,/-])(?![0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9-])|[0-9]{1,2}-[0-9]{1,2}-[0-9]{4})"
        r"[0-9]++(?:-[0-9]++){2,}(?![\w=]|\s=)",
        _spelled,
    ),
    Rule(r"\b[A-Z]{2} \K[0-9]{5}(?:-[0-9]{4})?(?![\w,.-]*[0-9])", _spelled),  # an American postal code
    Rule(
        r"(?i)\b(?:call|dial|phone|text)\s[0-9]{3}\sor\s\K[0-9]{3}(?![\w.,:%-]*[0-9]|\s+(?:people|times))",
        lambda match: english_digits(match[0]),
    ),
    Rule(
        r"(?i)\b(?:call|dial|dialed|dialled|phone|text)\s\K[0-9]{3,6}(?![\w.,:%-]*[0-9]|\s+(?:people|times))",
        lambda match: english_digits(match[0]),
    ),
    Rule(
        r"(?:\b(?i:(?:zip|postal|area|access|security|verification|dialing|country|pass)?\s?code|password|passcode|"
        r"extension|ending in|(?:account|card|order|phone|serial|tracking|reference|confirmation|case|invoice|room) "
        r"number)|\bPIN|\bID)(?:\s(?:is|was|number))?[:\s]\s?#?\K[0-9]{3,}+(?![\w.,:%-]*[0-9])",
        lambda match: english_digits(match[0]),
    ),
)

DATES = (
    Rule(r"(?<=[0-9]{4}-[0-9]{2}-[0-9]{2})T(?=[0-9]{2}:[0-9]{2})", " ", spaced=False),
    Rule(rf"{START}{_YEAR}-(?P<month>0[1-9]|1[0-2])-{_DAY}", _date),
    Rule(rf"{START}{_YEAR}/(?P<month>0?[1-9]|1[0-2])/{_DAY}", _date),
    Rule(rf"{START}([0-9]{{1,2}})[/.-]([0-9]{{1,2}})[/.-]((?:19|20)[0-9]{{2}})(?![\w/])", _slashed_date),
    Rule(rf"(?<![\p{{L}}]){_MONTH}\.?\s{_DAY}(?:(?:,\s?|\s){_YEAR})?(?!\s?(?:percent|%|[:.,][0-9]))", _date),
    Rule(
        rf"(?<=\bthe ){_DAY}\s(?:of\s)?{_MONTH}(?!\p{{L}}){_DOT}(?:,?\s{_YEAR})?",
        lambda match: _day_first(match).removeprefix("the "),
    ),
    Rule(rf"{START}{_DAY}\s(?:of\s)?{_MONTH}(?!\p{{L}}){_DOT}(?:,?\s{_YEAR})?", _day_first),
    Rule(
        r"(?<=\b(?:on|by|since|until|before|after|due) )(?!9/11)(?P<month>1[0-2]|0?[1-9])/"
        r"(?P<day>3[01]|[12][0-9]|0?[1-9])(?![\w/])",
        _date,
    ),
    Rule(rf"(?<!\p{{L}}){_MONTH}{_DOT},?\s{_YEAR}(?!\s?(?:percent|%|[:.,][0-9]))", _month_year),
    Rule(
        r"\b(Jan|Feb|Aug|Sept?|Oct|Nov|Dec)\.(?=\s)",
        lambda match: words.MONTHS[words.MONTH_BY_NAME[match[1]] - 1],
    ),
    Rule(r"(?<![\w.,/'’])((?:1[1-9]|20)[0-9]0)(?:'|’)?s\b", _decade),
    Rule(
        r"(?:(?<=\b(?:[Tt]he|[Ee]arly|[Mm]id|[Ll]ate|his|her|their)[ -])|(?<!\w)['’‘])([2-9]0)(?:'|’)?s\b",
        _short_decade,
    ),
    Rule(
        r"(?<![\w.,:/-])(?P<hour>[01]?[0-9]|2[0-4]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?(?![0-9:])"
        r"(?:\s?(?P<half>[AaPp] M|[AaPp]\.?[Mm](?!\w)))?",
        _time,
    ),
)

AMOUNTS = (
    Rule(
        r"(?<![\p{L}0-9.])([0-9]{1,3}(?:,[0-9]{3}){0,4}|[0-9]{1,12})(?:st|nd|rd|th)(?![\p{L}0-9])",
        lambda match: english_ordinal(int(match[1].replace(",", ""))),
    ),
    Rule(rf"(?<![\p{{L}}\p{{N}}])-\s?(?={_CURRENCY}\s?[0-9])", "minus ", spaced=False),
    Rule(
        rf"(?<!\p{{L}})(?P<currency>{_CURRENCY})\s?(?:(?P<low>{NUMBER})\s?(?:[-–—~]|to)\s?(?:{_CURRENCY})?)?"
        rf"(?P<high>{NUMBER}){_MAGNITUDE}",
        _money,
    ),
    Rule(
        rf"{START}{RANGE}{_MAGNITUDE}\s?(?P<currency>[€£¥￥₹]|USD|EUR|GBP|CNY|RMB|JPY)(?![\p{{L}}\p{{N}}])",
        _money,
    ),
    Rule(
        rf"(?<![\w.,/-])({NUMBER})\s?in\.(?=\s+[\p{{Ll}}0-9]|\s*$)",
        lambda match: f"{english_number(match[1])} inches",
    ),
    Rule(rf"{START}{RANGE}\s?¢", lambda match: f"{_amount(match)} {'cent' if _is_one(match) else 'cents'}"),
    Rule(
        rf"(?<![\p{{Latin}}0-9.,:])(?P<sign>-)?(?:(?P<low>{NUMBER})%?\s?[-–—~]\s?)?(?P<high>{NUMBER})\s?%",
        lambda match: f"{_sign(match)}{_amount(match)} percent",
    ),
    Rule(
        r"(?<![\w.'’])([3-8])['’′]\s?([0-9]|1[01])(?:[\"”″]|'')",
        lambda match: f"{english_cardinal(int(match[1]))} foot {english_cardinal(int(match[2]))}",
    ),
    Rule(
        rf"(?<![\p{{Latin}}0-9.,/:])(?P<sign>-)?{RANGE}(?P<space>\s?)(?P<unit>{alternatives(words.UNITS)})"
        r"(?![\p{L}\p{N}°²³/])(?:\.(?=\s+[\p{Ll}0-9]))?",
        _unit,
    ),
)
