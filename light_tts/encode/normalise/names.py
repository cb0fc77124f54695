"""Names that both languages share: files, Greek letters, acronyms that the eye takes for words."""

from __future__ import annotations

_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_ENGLISH = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi "
    "chi psi omega"
).split()
_CHINESE = (
    "阿尔法 贝塔 伽马 德尔塔 艾普西隆 泽塔 伊塔 西塔 约塔 卡帕 拉姆达 缪 纽 克西 奥米克戎 派 柔 西格马 陶 宇普西隆 "
    "斐 希 普西 欧米伽"
).split()
GREEK_ENGLISH = dict(zip(_GREEK, _ENGLISH, strict=True)) | {"ς": "sigma"}
GREEK_CHINESE = dict(zip(_GREEK, _CHINESE, strict=True)) | {"ς": "西格马"}

GREEK_LETTER = r"(?<!\p{Greek})[α-ωΑ-Ω](?!\p{Greek})"
"""A single one; runs of them are Greek words."""

_SPELLED = (
    "pdf docx doc xlsx xls pptx ppt csv txt jpg jpeg png gif svg mp3 mp4 avi mkv flac exe py js ts sh html htm css xml "
    "md cpp sql dll iso apk ini rs ipynb srt vtt"
).split()
_SAID = "zip log java json yaml toml bin tar wav conf cfg bak".split()
_EXTENSIONS = "|".join(sorted([*_SPELLED, *_SAID], key=len, reverse=True))

FILE_NAME = (
    r"(?i)(?<![\p{Latin}0-9_./@-])([a-z0-9_][a-z0-9_-]{0,63}(?:\.[a-z0-9_-]{1,63}){0,3}?)"
    rf"\.({_EXTENSIONS})(?![\p{{Latin}}0-9_-]|[./@][a-z0-9])"
)
"""Groups: name, extension."""

ACRONYM = (
    r"(?<![\p{Latin}\p{N}'’.&/-])(?<!\b[A-Z]{2,} )(US|IT|WHO)(?![\p{Latin}\p{N}'’&$/-]| [A-Z]{2,}\b|\.[A-Z])"
)
"""In capitals among words that are not, so letters are meant, not the pronoun."""

INITIALS = r"(?<![\p{Latin}\p{N}])([A-Z]{1,3})\s?&\s?([A-Z]{1,3})(?![\p{Latin}\p{N}])"
"""AT&T, R&D, Q&A."""

SPELLED_DOMAINS = frozenset("cn uk ai io tv cc us eu jp de fr".split())
"""Ends of addresses that are read letter by letter."""


def letters(text: str) -> str:
    """ "pdf" -> "P D F"."""
    return " ".join(text.upper())


def extension(text: str) -> str:
    """The ending of a file's name as it is said: "P D F", "zip"."""
    return text.lower() if text.lower() in _SAID else letters(text)
