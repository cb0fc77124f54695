"""The special tokens that CosyVoice2 and CosyVoice3 add to the Qwen2 vocabulary, in the order of their ids."""

from __future__ import annotations

from functools import cache

END_OF_TEXT = "<|endoftext|>"
END_OF_PROMPT = "<|endofprompt|>"

_VERSION_2 = """
<|im_start|> <|im_end|> <|endofprompt|> [breath] <strong> </strong> [noise] [laughter] [cough] [clucking] [accent]
[quick_breath] <laughter> </laughter> [hissing] [sigh] [vocalized-noise] [lipsmack] [mn]
"""

# ARPAbet; `*` marks a vowel, which comes without stress and with stress 0, 1, 2.
_PHONES = """
AA* AE* AH* AO* AW* AY* B CH D DH EH* ER* EY* F G HH IH* IY* JH K L M N NG OW* OY* P R S SH T TH UH* UW* V W Y Z ZH
"""

_PINYIN = """
a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu ià iàn iàng iào iá ián iáng iáo iè ié iòng ióng iù iú iā iān
iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ j k l m n o ong ou p q r s sh t u uang ue un uo uà uài uàn uàng uá uái
uán uáng uè ué uì uí uò uó uā uāi uān uāng uē uě uī uō uǎ uǎi uǎn uǎng uǐ uǒ vè w x y z zh à ài àn àng ào á ái án áng
áo è èi èn èng èr é éi én éng ér ì ìn ìng í ín íng ò òng òu ó óng óu ù ùn ú ún ā āi ān āng āo ē ēi ēn ēng ě ěi ěn ěng
ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ ǐn ǐng ǒ ǒng ǒu ǔ ǔn ǘ ǚ ǜ
"""


@cache
def _known() -> frozenset[str]:
    return frozenset(special_tokens(3))


def special_tokens(version: int) -> list[str]:
    """Every token that is added after the base vocabulary, if it is not in it already. version: 2 or 3."""
    tokens = [END_OF_TEXT, *_VERSION_2.split()]
    if version == 2:
        return tokens
    phones: list[str] = []
    for phone in _PHONES.split():
        name = phone.removesuffix("*")
        phones += [name + stress for stress in ("", "0", "1", "2")] if phone.endswith("*") else [name]
    return [*tokens, "<|endofsystem|>", *(f"[{part}]" for part in phones + _PINYIN.split())]


def is_delivery_tag(token: str) -> bool:
    """Tags such as [breath] colour the delivery and may come from a user; the other special tokens steer the model."""
    return not token.startswith("<|") and token in _known()
