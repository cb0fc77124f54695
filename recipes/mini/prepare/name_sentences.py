"""Sentences with names of people and places, and set phrases: what everyday text has too little of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recipes.mini.prepare import name_lists as lists
from recipes.mini.prepare.templates import fill

_TRIES = 20  # for a name that no excluded text has

_TITLES = (
    "Doctor|Professor|Mister|Captain|Mayor|Judge|Miss|Colonel|Inspector|Sister|Uncle|Aunt|President".split(
        "|"
    )
)
_ROLES = (
    "engineer|painter|architect|journalist|violinist|surgeon|novelist|carpenter|biologist|lawyer|conductor|librarian"
    "|mathematician|photographer|geologist|translator|gardener|astronomer|historian|midwife|blacksmith|jeweller|diplomat"
    "|veterinarian|pharmacist|choreographer|philosopher|economist|shoemaker|lifeguard"
).split("|")
_DID = (
    "won the science prize|wrote a book about volcanoes|opened a small bookshop|taught chemistry for thirty years"
    "|recorded an album of old songs|designed the new railway bridge|discovered a rare orchid"
    "|lost a suitcase at the airport|ran the marathon|translated the letters"
    "|painted the ceiling of the chapel|bought a second-hand piano"
    "|repaired the church clock|gave a talk about whales|learned to sail|published a dictionary|founded an orchestra"
    "|photographed the eclipse|studied medicine|baked a wedding cake|sold the old farmhouse|crossed the desert by camel"
    "|invented a quieter engine|directed a short film|planted four hundred apple trees|broke the swimming record"
).split("|")
_POSTS = (
    "大夫|老师|教授|先生|女士|小姐|经理|主任|律师|工程师|同学|师傅|爷爷|阿姨|将军|局长|船长|编辑|记者|法官|校长|护士|队长|医生"
).split("|")
_DEEDS = (
    "获得了科学奖|写了一本关于火山的书|开了一家小书店|教了三十年化学|录了一张老歌专辑|设计了那座铁路桥|发现了一种稀有的兰花|丢了一只箱子|跑完了马拉松"
    "|翻译了那些信|修好了钟楼的大钟|做了一场关于鲸鱼的报告|学会了开帆船|编了一部词典|办了一个乐团|拍到了日食|学了五年中医|烤了一个大蛋糕|卖掉了老房子"
    "|骑骆驼穿过了沙漠|拍了一部短片|种了四百棵苹果树|打破了游泳纪录|捐了一大笔钱|赢了围棋比赛|考上了大学|当上了船长|买了一架旧钢琴|画了一幅山水画"
).split("|")

_ENGLISH = """
{person} {did} in {town}.
{person} and {given} travelled from {town} to {town}.
{given} and {given} grew up in {town}, but they met in {town}.
{title} {surname} was born in {town} and later moved to {town}.
The {role} {person} {did} together with {person}.
Have you ever met {person}, the {role} from {town}?
{title} {surname} asked {given} to {act} before {day}.
My neighbour {person} {did} last {month}.
"Good evening," said {given} {surname}, "is {title} {surname} at home?"
In {month}, {person} will fly from {town} to {town} with {given}.
{given}, {given} and {given} shared a room near {place} in {town}.
Nobody in {town} knew that {person} {did}.
Please welcome {person}, {person} and {title} {surname}!
{given}'s sister {given} works as a {role} in {town}.
Was it {given} or {given} who {did}?
The {surname} family left {town} in {1700-1990}.
The letter was signed by {person} and sent to {person} in {town}.
According to {title} {surname}, the train to {town} stops in {town} and {town}.
{person} is a {role}, and {person} is a {role}.
I think {given} would rather live in {town} than in {town}.
When {person} came back from {town}, {given} {did}.
{surname} and {surname} are the largest law firm in {town}.
Ask {given} {surname} to call {title} {surname} in {town}.
{given} {did}, {given} {did}, and {given} stayed in {town}.
Between {town} and {town} we talked about {person}.
The museum in {town} was named after {person}, who {did}.
{person} beat {person} in the final in {town}.
Thank you, {given}, and say hello to {given} and {given}.
"""

_CHINESE = """
{姓名}在{地}{行}。
{姓名}和{姓名}从{地}搬到了{地}。
{姓名}{职}让{姓名}星期{周}{事}。
{姓}{职}是{地}人，后来去了{地}。
{姓名}，字{字}{字}，是{地}人。
你认识{姓名}吗？他是{地}的{职}。
{姓名}、{姓名}和{姓名}都是我的同学。
{地}的{姓名}{行}，大家都很高兴。
昨天{姓}{职}在{地}见到了{姓名}。
是{姓名}还是{姓名}{行}？
我姓{姓}，叫{姓名}，请多关照。
{姓名}{行}，{姓名}{行}，{姓名}留在了{地}。
请问，{姓名}{职}在家吗？
{月}月的时候，{姓名}要从{地}去{地}看{姓名}。
在{地}，没有人不知道{姓名}{职}。
{姓名}的妹妹{姓名}在{地}当{职}。
这封信是{姓名}写给{姓}{职}的。
比起{地}，{姓名}更喜欢{地}。
从{地}到{地}，中间要经过{地}和{地}。
{古}是中国历史上很有名的人物。
老师给我们讲了{古}和{古}的故事。
{姓名}正在读一本关于{古}的书。
{外}和{外}在{地}见了面。
{外}{行}，{姓名}{职}觉得很佩服。
你更喜欢{古}还是{外}？
{姓}{职}，这位是{地}来的{姓名}{职}。
欢迎{姓名}、{姓名}和{姓}{职}！
{地}、{地}、{地}，这几个地方{姓名}都去过。
听说{姓名}{行}，是真的吗？
小{字}和阿{字}在{地}等{姓}{职}。
决赛里，{姓名}在{地}赢了{姓名}。
谢谢你，{姓名}，代我向{姓}{职}问好。
"""

_PHRASES_ENGLISH = (
    "thanks a lot|talk to you later|good luck|have a nice day|see you tomorrow|take care|no problem|you're welcome"
    "|just a moment|hold on|come on|well done|not at all|good evening|good afternoon|how are you|nice to see you"
    "|I'm sorry|I'm fine|never mind|of course|all right|let's go|hurry up|be careful|that's right|what happened"
    "|are you sure|I don't think so|maybe later|sounds good|happy birthday|safe travels|sleep well|after you"
    "|here you are|call me back|I'll be right there|what a pity|who is it|where are you|get well soon|enjoy your meal"
    "|long time no see|it's up to you|don't worry|wait for me|so do I|same to you|welcome back|watch out"
    "|that's enough|one more time"
).split("|")
_PHRASES_CHINESE = (
    "多谢|明天见|慢走|辛苦了|没事|不用谢|等一等|别着急|快来|干得好|晚上好|下午好|你好吗|很高兴认识你|不好意思|我很好|算了|当然可以|好吧|我们走吧"
    "|小心点|没错|怎么了|你确定吗|我不这么想|以后再说|听起来不错|生日快乐|一路平安|早点休息|您先请|给你|给我回电话|我马上到|真可惜|谁呀|你在哪儿"
    "|早日康复|请慢用|好久没见|随你|别担心|等等我|我也是|彼此彼此|欢迎回来|当心|够了|再来一次|改天聊|请稍等|久等了|打扰了|保重|恭喜发财|新年快乐"
).split("|")


@dataclass(frozen=True, slots=True)
class NameSentences:
    """Makers of sentences; forbidden: all letters of texts in which none of our full names may stand."""

    forbidden: str = ""

    def english(self, rng: random.Random) -> str:
        """About people and towns. The first letter is a capital, as people write."""
        text = fill(rng, _pick(rng, _lines(_ENGLISH)), self._english_slots(rng))
        return text[0].upper() + text[1:]

    def chinese(self, rng: random.Random) -> str:
        """About people and places of China and elsewhere."""
        return fill(rng, _pick(rng, _lines(_CHINESE)), self._chinese_slots(rng))

    def chinese_name(self, rng: random.Random) -> str:
        """A family name, in a quarter of the cases one of two characters, and one or two characters more."""
        for _ in range(_TRIES):
            family = _pick(rng, lists.FU_XING if rng.random() < 0.25 else lists.XING)
            name = family + "".join(rng.choices(lists.MING, k=1 if rng.random() < 0.3 else 2))
            if len(name) < 3 or name not in self.forbidden:
                break
        return name

    def english_name(self, rng: random.Random) -> str:
        """Given and family name, now and then with a third in between."""
        for _ in range(_TRIES):
            given, surname = _pick(rng, lists.GIVEN), _pick(rng, lists.SURNAMES)
            if f"{given}{surname}".lower() not in self.forbidden:
                break
        middle = f" {_pick(rng, lists.GIVEN)}" if rng.random() < 0.08 else ""
        return f"{given}{middle} {surname}"

    def _english_slots(self, rng: random.Random) -> dict[str, Callable[[], str]]:
        return {
            "person": lambda: self.english_name(rng),
            "given": lambda: _pick(rng, lists.GIVEN),
            "surname": lambda: _pick(rng, lists.SURNAMES),
            "name": lambda: _pick(rng, lists.GIVEN),
            "town": lambda: _pick(rng, lists.TOWNS),
            "city": lambda: _pick(rng, lists.TOWNS),
            "title": lambda: _pick(rng, _TITLES),
            "role": lambda: _pick(rng, _ROLES),
            "did": lambda: _pick(rng, _DID),
        }

    def _chinese_slots(self, rng: random.Random) -> dict[str, Callable[[], str]]:
        return {
            "姓名": lambda: self.chinese_name(rng),
            "人": lambda: self.chinese_name(rng),
            "姓": lambda: _pick(rng, lists.FU_XING if rng.random() < 0.25 else lists.XING),
            "字": lambda: _pick(rng, lists.MING),
            "地": lambda: _pick(rng, lists.DI),
            "城": lambda: _pick(rng, lists.DI),
            "古": lambda: _pick(rng, lists.GU_REN),
            "外": lambda: _pick(rng, lists.WAI_REN),
            "职": lambda: _pick(rng, _POSTS),
            "行": lambda: _pick(rng, _DEEDS),
            "月": lambda: _pick(rng, list("一二三四五六七八九十")),
        }

    def slots(self, rng: random.Random) -> dict[str, Callable[[], str]]:
        """Names for the templates of numbers and of switched languages, in place of their own few."""
        both = {**self._english_slots(rng), **self._chinese_slots(rng)}
        return {name: both[name] for name in ("name", "surname", "city", "人", "城")}


def short_phrase(rng: random.Random, language: str) -> str:
    """One to three set phrases; now and then to somebody by name."""
    english = language == "en"
    phrases = rng.sample(_PHRASES_ENGLISH if english else _PHRASES_CHINESE, k=rng.choice((1, 2, 2, 2, 3)))
    if rng.random() < 0.25:
        whom = _pick(rng, lists.GIVEN) if english else _pick(rng, lists.XING) + _pick(rng, _POSTS)
        phrases.insert(1 if english else 0, whom)
    mark = rng.choice((".", ".", ".", "!", "?") if english else ("。", "。", "。", "！", "？"))
    text = (", " if english else "，").join(phrases) + mark
    return text[0].upper() + text[1:]


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    return rng.choice(choices)
