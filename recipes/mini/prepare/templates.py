"""Sentences of our own making: numbers, dates, prices, names, and Chinese with English words in it.

Written with digits and signs, as people write; the front end of the product reads them in words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)-(\d+)")

_WORDS = {
    # English
    "name": "Emma|Liam|Olivia|Noah|Sophia|James|Mia|Lucas|Grace|Henry|Chloe|Daniel|Ruby|Oscar|Hannah|Leo|Alice|Ethan"
    "|Nora|Jack|Wei|Ming|Fatima|Carlos|Priya|Yuki|Ahmed|Elena|Marco|Ingrid|Margaret|Benjamin|Charlotte|Theodore"
    "|Penelope|Dmitri|Aisha|Giovanni|Francesca|Rajesh|Miguel|Astrid|Cornelius|Josephine|Valentina|Nathaniel",
    "surname": "Smith|Johnson|Brown|Taylor|Wilson|Clark|Lewis|Walker|Hall|Young|Allen|King|Wright|Scott|Green|Baker"
    "|Adams|Nelson|Carter|Mitchell|Turner|Parker|Collins|Chen|Patel|Garcia|Kim|Rossi|O'Connor|Hernandez|Kowalski"
    "|Schneider|Nakamura|Petrov|Andersson|Fitzgerald|Montgomery|Ramirez|Blackwood|Hawthorne|Castellano|Okafor",
    "city": "London|Paris|Boston|Chicago|Sydney|Toronto|Dublin|Tokyo|Beijing|Shanghai|Berlin|Madrid|Denver|Seattle"
    "|Oxford|Vienna|Cairo|Lima|Oslo|Rome|Lisbon|Prague|Nairobi|Montreal|Singapore|Helsinki|Barcelona|Philadelphia",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "things": "tickets|notebooks|chairs|apples|bottles of water|light bulbs|envelopes|batteries|plates|blankets"
    "|shirts|pencils|eggs|lemons|photographs|keys|cups of tea|umbrellas|magazines|sandwiches|stamps|oranges|tulips",
    "place": "the library|the museum|the post office|the airport|the hotel|the bakery|the office|the hospital"
    "|the school|the market|the bridge|the theatre|the garden|the harbour|the station|the bank|the castle|the lake",
    "adjective": "quiet|crowded|modern|expensive|friendly|beautiful|narrow|dusty|comfortable|enormous|ordinary"
    "|peaceful|famous|strange|cheerful|gloomy|spacious|elegant",
    "act": "finish the report|book a table|water the plants|check the schedule|renew my passport|repair the bicycle"
    "|cook dinner|feed the cat|buy some groceries|call the doctor|return the books|pick up the parcel"
    "|practise the violin|clean the kitchen|answer the letter|charge the phone|paint the fence",
    "unit": "kilometers|miles|kilograms|pounds|meters|liters|hours|minutes|weeks|feet|inches|acres",
    "ampm": "AM|PM",
    # Chinese
    "人": "王伟|李娜|张敏|刘静|陈丽|杨强|赵磊|黄勇|周艳|吴杰|徐涛|孙明|胡秀英|朱文博|高雨欣|林子涵|何思远|郭嘉怡"
    "|马俊杰|罗晓东|欧阳海燕|司马志强|上官建国|诸葛梦洁|慕容浩宇|尉迟欣然|令狐超|夏侯洋|皇甫军|端木芳|轩辕静|宇文慧",
    "城": "北京|上海|广州|深圳|成都|杭州|武汉|西安|南京|重庆|天津|苏州|长沙|青岛|大连|厦门|昆明|哈尔滨|乌鲁木齐|拉萨"
    "|贵阳|兰州|呼和浩特|景德镇|伦敦|巴黎|东京|纽约|柏林|莫斯科",
    "处": "图书馆|博物馆|邮局|机场|酒店|面包店|办公室|医院|学校|菜市场|大桥|剧院|花园|码头"
    "|火车站|银行|体育馆|公园|超市",
    "物": "苹果|椅子|笔记本|电池|信封|鸡蛋|柠檬|衬衫|雨伞|杂志|灯泡|盘子|铅笔|邮票|橘子|茶杯|毛巾|钥匙|门票|牛奶",
    "量": "公里|米|公斤|克|升|毫升|小时|分钟|平方米|厘米|吨",
    "事": "交报告|订机票|浇花|修自行车|做晚饭|喂猫|买菜|看医生|还书|取快递|练钢琴|打扫厨房|开会|写作业|洗衣服|换手机",
    "形": "安静|热闹|现代|贵|友好|漂亮|狭窄|舒服|普通|有名|奇怪|宽敞|便宜|干净",
    "周": "一|二|三|四|五|六|日",
    "分": "三分之一|三分之二|四分之三|五分之二|十分之七|一半",
    # English words that Chinese speakers use
    "英": "WiFi|email|PPT|KTV|VIP|Python|Excel|iPhone|Starbucks|party|project|deadline|offer|bug|demo|PDF|USB|GPS|NBA"
    "|CEO|coffee|weekend|shopping|Google|Windows|Linux|AI|app|blog|logo|model|office|password|server|update|video"
    "|website|TOEFL|MBA|HR|IT|CPU|Facebook|Microsoft|Amazon|Netflix|YouTube|Bluetooth|laptop|presentation|schedule",
    "短": "meeting|team building|machine learning|big data|high school|part time|happy hour|road trip|credit card"
    "|phone call|code review|open source|role play|deep learning|check in|fast food|user name|text to speech",
    "句": "see you later|never mind|good luck|thank you very much|I have no idea|what a surprise|take it easy"
    "|nice to meet you|no problem|long time no see|happy birthday|don't worry about it|better late than never",
}

_ENGLISH = """
{name} {surname} ordered {2-99} {things} on {month} {1-28}.
The train to {city} leaves at {1-12}:{10-59} from platform {1-24}.
My appointment with Doctor {surname} is on {day}, {month} {1-28}, at {1-12} o'clock.
The total comes to ${2-999}.{10-99}, including tax.
In {1850-2025}, about {2-98}% of the people in {city} lived near {place}.
Please {act} before {day} and then {act}.
{name} walked past {place} and stopped in front of {place}.
Did {name} remember to {act} this morning?
It is {2-39} degrees in {city} today, with a light wind and a little rain.
Room {101-989} is {adjective} and {adjective}, but it costs ${40-400} a night.
Could you please tell {name} that {place} is {adjective} on {day}s?
She lives at {2-999} {surname} Street, not far from {place} in {city}.
{name} and {name} need {2-60} minutes to {act} and {act}.
The population of the town grew from {1-99},{100-999} to {100-400},{100-999} in {2-40} years.
How far is it from {place} to {place} in {city}?
The letter from {name} {surname} is dated {month} {th}, {1900-2020}.
On {month} {th}, {1700-2030}, {place} in {city} was closed.
The meeting was moved from {1-12}:{10-59} {ampm} to {1-12}:{10-59} {ampm}.
We sold {1000-99999} {things} for ${1000-99999} last {month}.
The road to {city} is {1-99}.{1-9} {unit} longer than the map says.
Prices rose by {1-20}.{1-9}% in {1950-2025} and fell by {1-9}% a year later.
You can reach {name} at {100-999}-{1000-9999} after {1-12} {ampm}.
Mix {50-500} grams of rice with {2-9} spoons of oil and {1-9} glasses of water.
{2-20} out of {21-99} {things} were {adjective}.
The {2-99}th house on {surname} Road was built in {1600-2020}.
{name} ran {1-40} {unit} in {1-59} minutes and {1-59} seconds.
Nearly {1000-90000} visitors saw {place} last year, and {100-999} of them came from {city}.
Our flight, number {100-9999}, is {2-90} minutes late.
Add {1-99} and {1-99}, then take away {1-99}.
{name} is {1-99} years old, and {name} will be {1-99} in {month}.
The company made ${1-99} million in {1990-2025}.
Chapter {1-40} begins on page {1-600}.
"""

_CHINESE = """
{人}在{1950-2030}年{1-12}月{1-28}日去了{城}。
{物}的价格从{10-999}元涨到了{1000-9999}元。
今天{城}的最高气温是{1-39}度，最低气温是{1-15}度。
我们下午{1-6}点{10-59}分在{处}见面。
大约{2-99}%的人认为{处}很{形}。
他的电话号码是{d}{d}{d}{d}{d}{d}{d}{d}。
从{城}到{城}大约有{20-1999}公里。
会议改到星期{周}上午{8-11}点，由{人}负责。
{人}的护照{2020-2040}年{1-12}月{1-28}日到期。
从{1900-2030}年到{1900-2030}年，{人}一直住在{城}。
{物}每公斤{1-99}.{1-9}元，{2-20}公斤以上打{5-9}折。
一共是¥{1-999}.{10-99}，请在{处}付款。
上个月有{1000-90000}人参观{处}，其中{100-9999}人来自{城}。
{人}今年{1-99}岁，他的孩子{1-20}岁。
这里有{2-99}{量}，那里有{2-999}{量}。
去年增长了{1-30}.{1-9}%，今年只增长{1-9}%。
房间号是{101-2999}，在{2-40}楼。
{人}用了{1-59}分{1-59}秒跑完了{1-40}公里。
第{1-99}次列车{1-23}点{10-59}分从{城}开出。
请翻到第{1-600}页，看第{2-20}题。
{1-9}加{1-9}等于几？{10-99}减{1-9}呢？
我买了{2-20}个{物}，花了{10-500}块钱。
这座{处}建于{1600-2020}年，面积{100-99999}平方米。
大概有{分}的{物}坏了。
{人}和{人}星期{周}要{事}，然后{事}。
请把{物}和{物}放在{物}旁边。
你知道{处}怎么走吗？{人}在那里等你。
{人}说，{城}的{处}比{城}的{处}更{形}。
"""

_SWITCHED = """
我昨天在{英}上看到了{人}。
{人}的{英}坏了，星期{周}才能修好。
请把{英}发给我，我要{事}。
这个{英}真的很{形}，你也试试吧。
老板说下周{周}有一个{短}，大家都要参加。
他想学{短}，可是没有时间。
{处}的{英}密码是多少？
我觉得这个{英}比那个{英}{形}多了。
{人}跟我说{句}，我不知道怎么回答。
他走的时候说：{句}。
{name}住在{城}，每天都去{处}。
{name}和{人}在{city}的{处}见了面。
你有没有收到{name}的{英}？
我们公司的{英}是{name} {surname}。
这家{处}的{英}要{10-99}块钱一个。
打开{英}，然后点一下{英}。
晚上有{短}，你来不来？
{day}用中文怎么说？是星期{周}。
我在{city}的时候经常听到{句}这句话。
{英}和{英}哪个更{形}？
他的{英}有{2-99}个{英}，太{形}了。
The Chinese word for this is {物}, and that one is {物}.
My friend {人} comes from {城}.
"""


Slots = Mapping[str, Callable[[], str]]


def english_sentence(rng: random.Random, slots: Slots | None = None) -> str:
    """About numbers, dates, times, prices and names."""
    return fill(rng, rng.choice(_lines(_ENGLISH)), slots)


def chinese_sentence(rng: random.Random, slots: Slots | None = None) -> str:
    """About numbers, dates, times, prices and names."""
    return fill(rng, rng.choice(_lines(_CHINESE)), slots)


def switched_sentence(rng: random.Random, slots: Slots | None = None) -> str:
    """Chinese with English words in it, and now and then the reverse."""
    return fill(rng, rng.choice(_lines(_SWITCHED)), slots)


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()


def fill(rng: random.Random, template: str, slots: Slots | None = None) -> str:
    """`template` with every {slot} filled; slots: what is used in place of, or beside, the lists of this module."""
    return _SLOT.sub(lambda slot: _value(rng, slot[1], slots or {}), template)


def _value(rng: random.Random, slot: str, slots: Slots) -> str:
    if slot in slots:
        return slots[slot]()
    if bounds := _RANGE.fullmatch(slot):
        return str(rng.randint(int(bounds[1]), int(bounds[2])))
    made: dict[str, Callable[[], str]] = {"d": lambda: str(rng.randint(0, 9)), "th": lambda: _ordinal(rng)}
    return made[slot]() if slot in made else rng.choice(_WORDS[slot].split("|"))


def _ordinal(rng: random.Random) -> str:
    day = rng.randint(1, 28)
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"
