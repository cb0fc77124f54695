"""HTML and Markdown taken off text: what a reader sees of it stays, blocks end as sentences do."""

from __future__ import annotations

import html

import regex

_BLOCKS = (
    "p|h[1-6]|div|li|ul|ol|dl|dt|dd|tr|table|thead|tbody|tfoot|caption|blockquote|pre|section|article|aside|header|"
    "footer|main|nav|figure|figcaption|address|form|fieldset|html|body|head|title|hr|speak|details|summary"
)
_PAUSES = "br|td|th|break|option"
_INLINE = (
    "a|abbr|acronym|audio|b|bdi|bdo|big|button|center|cite|code|data|del|dfn|em|font|i|iframe|img|input|ins|kbd|label|"
    "link|mark|meta|q|rp|rt|ruby|s|samp|select|small|source|span|strike|strong|sub|sup|svg|time|tt|u|var|video|wbr|"
    "emphasis|prosody|voice|say-as|phoneme|script|style|textarea|template|noscript"
)
# Attributes are read possessively: text with many "<" costs no more than its length.
_TAG = regex.compile(
    rf"(?i)</?(?:(?P<block>{_BLOCKS})|(?P<pause>{_PAUSES})|{_INLINE})"
    r"(?P<attributes>(?:\s++[a-z_:][\w:.-]*+(?:\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'<>=`]++))?+)*+)\s*+/?>"
)
_UNSEEN = regex.compile(
    r"(?is)<!--.{0,20000}?-->|<!doctype[^<>]{0,200}>|<(script|style|template|noscript)\b[^<>]{0,500}>"
    r".{0,20000}?</\1\s*>"
)
_ALT = regex.compile(r"(?i)\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_ENTITY = regex.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_LINK_TARGET = (
    r"\(\s*+<?[^()<>\s]*+(?:\([^()<>\s]*+\)[^()<>\s]*+)?>?(?:\s++(?:\"[^\"\n]*+\"|'[^'\n]*+'))?\s*+\)"
)
_IMAGE = regex.compile(rf"!\[([^\[\]\n]*+)\](?:{_LINK_TARGET}|\[[^\[\]\n]*+\])")
_LINK = regex.compile(rf"(?<!!)\[([^\[\]\n]++)\](?:{_LINK_TARGET}|\[[^\[\]\n]*+\])")
_AUTOLINK = regex.compile(r"<((?:https?|ftp|mailto):[^<>\s]++|[\w.+-]{1,64}@[\w.-]{1,253})>")
_FOOTNOTE = regex.compile(r"\[\^[^\[\]\s]{1,40}\]:?")
_REFERENCE = regex.compile(r"(?m)^ {0,3}\[[^\[\]\n]++\]:\s*\S++[^\n]*$")
_TASK = regex.compile(r"(?m)^(\s{0,20}[-*+]\s{1,4})\[[ xX]\]\s")
_TABLE_ROW = regex.compile(r"(?m)^[ \t]{0,20}\|([^\n]*)\|[ \t]*$")
_ENDS_WITH_MARK = regex.compile(r"[\p{P}--[\p{Pe}\p{Pf}\"'*_#%&@]]\s*$|^\s*$", regex.VERSION1)
_HAN = regex.compile(r"\p{Han}")


def plain(text: str) -> str:
    """What a reader would see of `text`; line breaks stay, and an empty line follows what stands alone.

    Tags that are no HTML or SSML stay, as do < and > in formulas.
    """
    if "<" in text:
        text = _TAG.sub(_without_tag, _UNSEEN.sub("", _AUTOLINK.sub(r" \1 ", text)))
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    if "[" in text:
        text = _REFERENCE.sub("", _TASK.sub(r"\1", text))
        text = _FOOTNOTE.sub("", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text)))
    return _TABLE_ROW.sub(_row, text) if "|" in text else text


def _without_tag(match: regex.Match[str]) -> str:
    if match["block"]:
        return "\n\n"
    before = match.string[max(0, match.start() - 20) : match.start()]
    if match["pause"]:
        bare = _ENDS_WITH_MARK.search(before) or before.endswith(">")
        return "\n" if bare else ("，\n" if _HAN.search(before[-1]) else ",\n")
    alt = _ALT.search(match["attributes"])
    return f" {alt[1] or alt[2] or ''} " if alt else ""


def _character(match: regex.Match[str]) -> str:
    char = html.unescape(match[0])
    return " " if char == "\u00a0" else char


def _row(match: regex.Match[str]) -> str:
    if not match[1].strip("|:- \t"):
        return ""
    cells = [cell.strip() for cell in match[1].split("|")]
    comma = "，" if _HAN.search(match[1]) else ", "
    return comma.join(cell for cell in cells if cell) + "\n"
