"""Names of people and places in both languages, chosen by ourselves for many different syllables."""

from __future__ import annotations

GIVEN = """
Aaron Abigail Adam Adele Adrian Agatha Agnes Aidan Alan Albert Alejandro Alexander Alexandra Alfred Alicia Alison
Amanda Amelia Amy Ana Andrea Andrew Angela Angus Anita Anna Annabel Anthony Antonia Antonio Archibald Ariel Arnold
Arthur Astrid Audrey Augustus Aurora Austin Ava Barbara Barnaby Bartholomew Basil Bella Bernadette Bernard Bertha
Bethany Beverly Bianca Brandon Brenda Brian Bridget Bruce Bruno Calvin Cameron Camilla Carl Carla Carmen Caroline
Cassandra Catherine Cecilia Cedric Celeste Chad Charles Chelsea Chester Christina Christopher Clara Clarence Claudia
Clifford Clive Colin Conrad Constance Cora Craig Crystal Curtis Cynthia Cyril Daisy Damian Danielle Daphne Darius
Darren David Dawn Deborah Declan Delia Denise Dennis Derek Desmond Diana Diego Dolores Dominic Donald Dorothy Douglas
Duncan Dustin Dylan Edgar Edith Edmund Edward Edwin Eileen Eleanor Elijah Elizabeth Ella Elliot Elsa Emily Emilio
Enrique Eric Erica Ernest Esther Eugene Eunice Eva Evan Evelyn Felicity Felix Fergus Fernando Fiona Flora Florence
Frances Francis Franklin Frederick Freya Gabriel Gareth Gavin Gemma Geoffrey George Georgia Gerald Gilbert Gina Giles
Gladys Gloria Gordon Graham Gregory Greta Gretchen Guadalupe Gustav Gwen Harold Harriet Harrison Harvey Hazel Heather
Hector Helen Helga Herbert Herman Hilary Holly Horace Howard Hubert Hugo Humphrey Ian Ida Imogen Irene Iris Isaac
Isabella Isla Ivan Ivy Jacqueline Jade Jake Jasmine Jason Jasper Javier Jeanette Jeffrey Jennifer Jeremy Jerome
Jessica Joan Joel Johanna Jonathan Jordan Jorge Joseph Joshua Joyce Juan Judith Julia Julian Juliet June Justin Karen
Karl Kate Katrina Keith Kelly Kenneth Kevin Kimberly Kirsten Kurt Kyle Lana Laura Laurence Lawrence Leah Leonard Leroy
Leslie Lewis Lillian Linda Lionel Lloyd Lola Lorenzo Lorraine Louis Louise Lucia Lucy Ludwig Luis Luke Lydia Lynn
Mabel Madeline Magnus Malcolm Manuel Marcia Marcus Maria Marian Marianne Marilyn Marjorie Mark Martha Martin Marvin
Mary Mateo Matilda Matthew Maureen Maurice Max Maxine Megan Melanie Melissa Mercedes Meredith Michael Michelle Mildred
Milton Miranda Miriam Molly Monica Morgan Muriel Murray Myrtle Nadia Nancy Naomi Natalie Natasha Neil Nicholas Nicole
Nigel Nina Noel Norma Norman Octavia Odette Olga Oliver Orlando Otto Pablo Pamela Patricia Patrick Paul Paula Pauline
Pearl Pedro Percy Perry Peter Petra Phoebe Philip Phyllis Pierre Polly Preston Priscilla Quentin Rachel Rafael Ralph
Ramona Randolph Raymond Rebecca Regina Reginald Rhoda Richard Rita Robert Roberta Robin Rodney Roger Roland Roman
Ronald Rosa Rosalind Rosemary Roxanne Roy Rufus Rupert Russell Ruth Sabrina Sally Samantha Samuel Sandra Sarah Saul
Savannah Scarlett Selma Serena Seth Sharon Sheila Shirley Sidney Siegfried Simon Sonia Sophie Spencer Stacy Stanley
Stella Stephanie Stephen Stuart Susan Susanna Sven Sybil Sylvia Tabitha Tamara Tanya Teresa Terence Thelma Theresa
Thomas Tiffany Timothy Tobias Todd Tracy Trevor Tristan Trudy Ulrich Una Ursula Vanessa Vera Veronica Victor Victoria
Vincent Viola Violet Virginia Vivian Vladimir Wallace Walter Wanda Warren Wayne Wendy Wilbur Wilfred Wilhelmina
William Winifred Winston Xavier Yolanda Yvette Yvonne Zachary Zoe
""".split()

SURNAMES = """
Abbott Abernathy Acosta Aguilar Aldridge Alexander Anderson Andrews Archer Armstrong Arnold Ashworth Atkinson Bailey
Baldwin Banerjee Barker Barnes Barrett Barton Bates Beaumont Becker Bennett Benson Bernstein Bishop Blair Blake Bowen
Bowman Boyd Bradford Bradley Brennan Brewster Bridges Briggs Brooks Browning Bryant Buchanan Burgess Burke Burton
Butler Caldwell Calloway Cameron Campbell Cardenas Carlson Carmichael Carpenter Carroll Cartwright Castillo Chambers
Chandler Chapman Chavez Christensen Churchill Clarke Clayton Coleman Connolly Contreras Cooper Crawford Cromwell Cross
Crowley Cruz Cunningham Curtis Dalton Daniels Davenport Davidson Davies Dawson Delgado Dennison Diaz Dickinson Dixon
Dominguez Donaldson Donovan Doyle Drummond Duncan Dunn Eastwood Edwards Elliott Ellis Emerson Erickson Espinoza Evans
Fairchild Farrell Ferguson Fernandez Fischer Fisher Fleming Fletcher Flores Forrester Forsyth Foster Fowler Franklin
Fraser Freeman Fuentes Gallagher Galloway Gardner Garrett Gibson Gilmore Goldberg Gomez Gonzalez Goodwin Grant Graves
Greene Griffin Griffiths Guerrero Gutierrez Haas Hale Hammond Hancock Hansen Harding Hargreaves Harper Harrington
Harris Hartley Hastings Hayes Henderson Herrera Hicks Higgins Hoffman Holloway Holmes Hopkins Horowitz Houston Howell
Hudson Hughes Humphries Hunter Hutchinson Ibrahim Ingram Iverson Jackson Jacobs Jefferson Jenkins Jennings Jensen
Jimenez Johansson Jordan Joyce Kapoor Keller Kelly Kennedy Kessler Kirkpatrick Klein Knight Kozlov Kramer Lambert
Lancaster Larsen Lawson Leblanc Leonard Levine Lindqvist Livingston Lloyd Lockwood Logan Lombardi Longfellow Lopez
Lowell Lynch MacDonald Mackenzie Maldonado Malone Manning Marlowe Marshall Martinez Mason Matthews Maxwell McAllister
McBride McCarthy McCormick McGregor McKinley Medina Melville Mendoza Mercer Merriweather Meyer Middleton Miller Monroe
Moore Morales Moran Morgan Morris Morrison Mortimer Muller Murphy Murray Navarro Newton Nichols Nielsen Norton Novak
O'Brien O'Donnell O'Neill O'Sullivan Olsen Ortega Owens Padilla Palmer Parkinson Patterson Pearson Pemberton Pereira
Perkins Peterson Phillips Pierce Porter Powell Prescott Price Quigley Quinn Ramsey Randall Reed Reynolds Richards
Richardson Riley Rivera Roberts Robertson Robinson Rodriguez Rogers Romero Rosenberg Ross Rowland Russell Rutherford
Ryan Salazar Sanchez Sanders Sandoval Santiago Saunders Schmidt Schultz Schwartz Sharma Shaw Shepherd Sheridan Silva
Simmons Simpson Sinclair Singh Spencer Stanton Stephens Stevenson Stewart Stone Strickland Sullivan Sutherland Swanson
Tanaka Thatcher Thompson Thornton Townsend Tucker Underwood Valdez Vance Vargas Vasquez Vaughan Velasquez Vogel Wagner
Wallace Walsh Walters Warren Washington Watkins Watson Webb Weber Webster Weiss Wellington Wells Whitaker White
Whitfield Whitman Wilkinson Williams Williamson Winchester Winslow Winters Wolfe Woodward Wyatt Yamamoto Yates York
Zhang Zimmerman
""".split()

TOWNS = """
Aberdeen|Accra|Adelaide|Albany|Algiers|Amsterdam|Anchorage|Ankara|Antwerp|Athens|Atlanta|Auckland|Austin|Avignon
|Baghdad|Baltimore|Bangkok|Basel|Bath|Beirut|Belfast|Belgrade|Bergen|Bilbao|Birmingham|Bologna|Bordeaux|Bratislava
|Bremen|Brighton|Brisbane|Bristol|Brussels|Bucharest|Budapest|Buenos Aires|Buffalo|Calcutta|Calgary|Cambridge|Canberra
|Canterbury|Cardiff|Casablanca|Charleston|Cincinnati|Cleveland|Cologne|Columbus|Cordoba|Cork|Cornwall|Dakar|Dallas
|Damascus|Delhi|Detroit|Dover|Dresden|Dubai|Durham|Dusseldorf|Exeter|Florence|Frankfurt|Galway|Geneva|Genoa|Ghent
|Gibraltar|Glasgow|Gothenburg|Granada|Halifax|Hamburg|Hanoi|Hanover|Harvard|Havana|Heidelberg|Honolulu|Houston
|Indianapolis|Innsbruck|Istanbul|Jakarta|Jerusalem|Johannesburg|Kansas City|Karachi|Kathmandu|Kiev|Kingston|Krakow
|Kyoto|Lagos|Lancaster|Leeds|Leipzig|Limerick|Liverpool|Ljubljana|Los Angeles|Lucerne|Luxembourg|Lyon|Malaga
|Manchester|Manila|Marrakesh|Marseille|Melbourne|Memphis|Mexico City|Miami|Milan|Milwaukee|Minneapolis|Minsk|Monaco
|Montevideo|Moscow|Mumbai|Munich|Nantes|Naples|Nashville|Newcastle|New Delhi|New Orleans|New York|Nice|Norwich
|Nottingham|Nuremberg|Oklahoma City|Orlando|Osaka|Ottawa|Palermo|Panama City|Perth|Phoenix|Pisa|Pittsburgh|Plymouth
|Portland|Porto Alegre|Portsmouth|Quebec|Reykjavik|Riga|Rio de Janeiro|Rotterdam|Sacramento|Saint Petersburg
|Salt Lake City|Salzburg|San Antonio|San Diego|San Francisco|Santiago|Sao Paulo|Sarajevo|Seoul|Seville|Sheffield|Sofia
|Southampton|Stockholm|Strasbourg|Stuttgart|Sunderland|Taipei|Tallinn|Tangier|Tehran|Tel Aviv|Toulouse|Trieste|Tunis
|Turin|Utrecht|Valencia|Vancouver|Venice|Verona|Vilnius|Warsaw|Washington|Wellington|Winnipeg|Worcester|Yokohama|York
|Zagreb|Zurich|Norway|Switzerland|Portugal|Argentina|New Zealand|Scotland|Wales|Ireland|Brazil|Morocco|Ethiopia
|Iceland|Hungary|Romania|Vietnam|Thailand|Indonesia|the Netherlands|Belgium|Finland
""".replace("\n", "").split("|")

XING = list(
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范彭郎鲁韦昌马苗凤花方"
    "俞任袁柳鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于时傅皮卞齐康伍余元卜顾孟平黄和穆萧尹姚邵湛汪祁毛禹狄米贝明臧计"
    "伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万支柯管卢莫经房裘"
    "缪干解应宗丁宣邓郁单杭洪包诸左石崔吉钮龚程邢裴陆荣翁荀羊惠甄曲家封储靳焦牧谷车侯全班仰秋仲宫宁仇栾甘厉戎祖武符刘"
    "景詹束龙叶幸司韶黎薄印宿白怀蒲从索赖卓蔺屠蒙池乔胥能苍双闻莘党翟谭贡劳姬申扶堵冉宰桑桂牛寿通边燕冀尚农温别庄晏柴"
    "瞿阎充慕连茹习艾鱼容向古易慎廖庾居衡步都耿满弘匡国文寇广东沃利越师巩聂晁敖融冷辛阚简饶空曾沙养鞠丰关查游权盖益桓公"
)
"""Chinese family names of one character."""

FU_XING = (
    "诸葛|司马|欧阳|上官|端木|尉迟|慕容|令狐|皇甫|轩辕|宇文|长孙|公孙|司徒|司空|夏侯|东方|南宫|西门|独孤|闻人|澹台|公冶|宗政"
    "|濮阳|淳于|单于|太叔|申屠|仲孙|钟离|赫连|拓跋|呼延|百里|东郭|南门|第五|万俟|司寇|巫马|公西|乐正|梁丘|左丘|谷梁|段干|纳兰"
).split("|")
"""Chinese family names of two characters."""

MING = list(
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华慧巧美蓉萍红玉兰月凤洁梅琳素云莲真环雪荣爱妹香莺媛瑞佳嘉琼勤珍贞莉"
    "桦叶璧璐娅琦晶妍茜秋珊莎锦黛青倩婷姣婉娴瑾颖露瑶怡婵雁蓓纨仪荷丹眉君琴蕊薇菁梦岚苑婕馨瑗琰韵融园艺咏卿聪澜纯悦昭冰"
    "爽琬茗羽希宁欣飘育滢馥筠柔竹霭凝晓欢霄枫芸菲寒伊亚宜可姬舒影荔枝思毅俊峰保东文辉力永健世广志义兴良海山仁波贵福生龙"
    "元全国胜学祥才发武新利清飞彬富顺信子昌成康星光天达安岩中茂进林有坚和彪博诚先敬震振壮会思群豪心邦承乐绍功松善厚庆民友"
    "裕河哲江浩亮政谦亨奇固之轮翰朗伯宏言若鸣朋斌梁栋维启克伦翔旭鹏泽晨辰士以建家致树炎德行时泰盛雄琛钧冠策腾楠榕航弘宇轩"
    "涵皓睿梓诺沐宸奕霖屹洲煜铭鑫钰铮锐昊昱晟晖晗曦曼朔望潇泓沛澄湘淇淑渊湛溪滔潭濡灿炜烨焕熙璇瑜珏玮珂珮琪琳琅璋瑄璞"
    "芷芮苒茵莹菡萱葵蕾薰藜蔚蓝芝若菀绮绫绣纤纹绢缨织颐颂顾须衡征徽循彦彤彰悠惠恒恺恩恬悟情愫懿慈忱怀忻宛宾容寅寒宣宥密"
    "尧岳峻嵘崇崎嵩巍川州巡帆常庭廷廉庚序应延弈强弥归当录影往从心必忆志念性怜恋恕息悉惟惜想意愉慎慕憬戎战扬承抒拓挺捷授"
    "敏敦斐斯方旋日旻昂昆昕易星春昶显晋普景晴智暄暖曙曜书曼朝本朱李杉材村来松板极析果枢柏柯柳树根格桃桐桑梧梨棠森植椿楚楷"
    "榆槿樱橘欧歌正步殊段殷毓比水汀汐汝江池汶沁沅沙治泉法泊泳洛津洪流浚浦浪涌淳深温游湖源滨漫漪激灵炳烈照爵牧特狄猛玄率玑"
    "璟甜用甫田甲申男略畅登白百皎益真睦瞳知石砚硕碧磐祈祖神祯禄禧禹秉科秦程稷穆立竞端笑笛符第笙策简箫籽精系素紫绪绵缘缜罗"
    "耀老聆职肃肇胤舜舟航色节芃花苍苏茹荟莫华葆董蒙蕴虎虹蝶融行衍西观觅言许诗询诠谊谨谣谱豫贤赋赫超越跃路轲轶辅迅迈近迎"
    "远连迪逊通逸道邈那邵郁郎酉采里重野量钊钟钦铎锋镇长闻闽阔阳雅雨雯霓霜青靖韶音顶颀风飒食香骁骏骞高魁鲁鸥鸿鹤鹰麒麟黎默鼎"
)
"""Characters of Chinese given names."""

GU_REN = (
    "孔子|孟子|老子|庄子|屈原|司马迁|秦始皇|刘邦|项羽|韩信|张良|汉武帝|张骞|蔡伦|张衡|华佗|曹操|刘备|孙权|关羽|张飞|周瑜|司马懿|赵云|吕布|貂蝉"
    "|王羲之|陶渊明|祖冲之|武则天|唐太宗|玄奘|李白|杜甫|白居易|王维|杨贵妃|韩愈|柳宗元|欧阳修|王安石|苏轼|李清照|岳飞|辛弃疾|陆游|文天祥|毕昇|沈括"
    "|忽必烈|成吉思汗|郑和|朱元璋|李时珍|徐霞客|唐伯虎|郑成功|康熙|乾隆|曹雪芹|纳兰性德|林则徐|曾国藩|左宗棠|詹天佑|鲁迅|老舍|巴金|徐志摩|林徽因"
    "|孙悟空|猪八戒|林黛玉|贾宝玉|薛宝钗|王熙凤|武松|鲁智深|宋江|哪吒|嫦娥|牛郎|织女|花木兰|穆桂英|愚公|夸父|女娲|盘古|伏羲"
).split("|")
"""People of Chinese history and tales."""

DI = (
    "北京|上海|天津|重庆|石家庄|太原|呼和浩特|沈阳|长春|哈尔滨|南京|杭州|合肥|福州|南昌|济南|郑州|武汉|长沙|广州|南宁|海口|成都|贵阳|昆明|拉萨"
    "|西宁|兰州|银川|乌鲁木齐|香港|澳门|台北|高雄|深圳|珠海|汕头|佛山|东莞|惠州|肇庆|青岛|烟台|威海|潍坊|淄博|泰安|曲阜|洛阳|开封|安阳|大同|平遥"
    "|延安|敦煌|酒泉|嘉峪关|吐鲁番|喀什|伊犁|日喀则|丽江|大理|西双版纳|景洪|桂林|柳州|北海|三亚|厦门|泉州|漳州|武夷山|宁波|温州|绍兴|嘉兴|湖州"
    "|金华|衢州|舟山|苏州|无锡|常州|镇江|扬州|徐州|连云港|黄山|芜湖|蚌埠|九江|景德镇|赣州|庐山|岳阳|湘潭|张家界|凤凰|宜昌|襄阳|荆州|恩施|绵阳"
    "|乐山|峨眉山|九寨沟|攀枝花|遵义|大连|鞍山|丹东|吉林|延边|齐齐哈尔|牡丹江|佳木斯|漠河|包头|鄂尔多斯|呼伦贝尔|锡林郭勒|秦皇岛|承德|唐山|保定"
    "|邯郸|咸阳|宝鸡|渭南|汉中|亳州|濮阳|菏泽|兖州|涪陵|泸州|宜宾|梓潼|阆中|瑞丽|腾冲|昌都|林芝|阿里|格尔木|德令哈|中卫|固原|长江|黄河|青海湖|鄱阳湖"
    "|洞庭湖|太湖|泰山|华山|衡山|嵩山|昆仑山|喜马拉雅山|塔克拉玛干沙漠|伦敦|巴黎|柏林|罗马|马德里|里斯本|阿姆斯特丹|布鲁塞尔|维也纳|布拉格|华沙"
    "|布达佩斯|雅典|斯德哥尔摩|奥斯陆|赫尔辛基|莫斯科|圣彼得堡|伊斯坦布尔|开罗|内罗毕|约翰内斯堡|卡萨布兰卡|孟买|新德里|加尔各答|曼谷|河内|新加坡"
    "|吉隆坡|雅加达|马尼拉|首尔|釜山|东京|大阪|京都|北海道|悉尼|墨尔本|奥克兰|惠灵顿|纽约|华盛顿|波士顿|费城|芝加哥|西雅图|旧金山|洛杉矶|休斯敦"
    "|多伦多|温哥华|蒙特利尔|墨西哥城|哈瓦那|里约热内卢|布宜诺斯艾利斯|圣地亚哥|利马|冰岛|葡萄牙|瑞士|匈牙利|埃塞俄比亚|摩洛哥|哈萨克斯坦|尼泊尔"
).split("|")

WAI_REN = (
    "约翰|玛丽|汤姆|杰克|露西|爱丽丝|彼得|保罗|安娜|伊丽莎白|凯瑟琳|玛格丽特|威廉|亨利|查尔斯|乔治|路易斯|卡洛斯|安东尼奥|弗朗西斯|莎士比亚|达芬奇"
    "|米开朗基罗|伽利略|哥白尼|牛顿|爱因斯坦|居里夫人|达尔文|爱迪生|特斯拉|贝多芬|莫扎特|巴赫|肖邦|柴可夫斯基|托尔斯泰|陀思妥耶夫斯基|契诃夫|雨果"
    "|巴尔扎克|狄更斯|海明威|马克吐温|安徒生|格林|歌德|尼采|康德|柏拉图|亚里士多德|苏格拉底|拿破仑|华盛顿|林肯|丘吉尔|哥伦布|麦哲伦|马可波罗|毕加索|梵高"
    "|莫奈|福尔摩斯|罗密欧|朱丽叶|哈利波特|斯蒂芬|亚历山大|克里斯蒂娜|塞巴斯蒂安|碧翠丝|费尔南多|穆罕默德|伊万诺夫|山本|铃木|佐藤|田中|金恩熙|阮文雄"
).split("|")
