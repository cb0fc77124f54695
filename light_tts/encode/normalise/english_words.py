"""Tables for reading English: abbreviations, months, units, currencies."""

from __future__ import annotations

MONTHS = ("January February March April May June July August September October November December").split()
MONTH_BY_NAME = {
    **{month: number for number, month in enumerate(MONTHS, start=1)},
    **{month.upper(): number for number, month in enumerate(MONTHS, start=1)},
    **{
        month.lower(): number for number, month in enumerate(MONTHS, start=1) if month not in ("March", "May")
    },
    **{month[:3]: number for number, month in enumerate(MONTHS, start=1)},
    "Sept": 9,
}

TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Ms", "Dr": "Doctor", "Prof": "Professor", "Gen": "General",
    "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Rev": "Reverend",
    "Sen": "Senator", "Rep": "Representative", "Gov": "Governor", "Hon": "Honorable", "Pres": "President",
    "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
"""Before a name."""

STREETS = {
    "St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Dr": "Drive", "Ln": "Lane",
    "Hwy": "Highway", "Sq": "Square", "Pl": "Place", "Ct": "Court",
}  # fmt: skip
"""After a name or an ordinal."""

BEFORE_NUMBER = {
    "No": "number", "Nos": "numbers", "no": "number", "nos": "numbers", "Vol": "volume", "vol": "volume",
    "Ch": "chapter", "ch": "chapter", "Fig": "figure", "fig": "figure", "Figs": "figures", "figs": "figures",
    "p": "page", "pp": "pages", "Sec": "section", "sec": "section", "Apt": "apartment", "apt": "apartment",
    "Ste": "suite", "Ext": "extension", "ext": "extension", "Rm": "room", "Eq": "equation", "eq": "equation",
    "Bldg": "building", "bldg": "building", "Ver": "version", "ver": "version",
    "Pt": "part", "ca": "circa", "approx": "approximately",
    "Approx": "approximately", "Art": "article",
}  # fmt: skip

ROMAN_NOT_NUMBERED = frozenset("In At On The From To Near And Of For Malcolm Vitamin Start Give Stop".split())
"""Before II, III and the like these are no titles."""

ANYWHERE = {
    "vs": "versus", "Vs": "versus", "etc": "et cetera", "approx": "approximately", "Jr": "Junior",
    "Sr": "Senior", "Inc": "Inc", "Ltd": "Limited", "Co": "Company", "Corp": "Corporation",
    "dept": "department", "Dept": "Department", "Mr": "Mister", "Mrs": "Missus", "Ms": "Ms",
    "govt": "government", "e.g": "for example", "E.g": "For example", "i.e": "that is", "I.e": "That is",
    "a.k.a": "also known as", "Ph.D": "P H D", "a.m": "A M", "p.m": "P M", "Univ": "University",
    "Assn": "Association", "Bros": "Brothers", "al": "al",
}  # fmt: skip
"""Abbreviations that are read the same wherever they stand."""

NEVER_LAST = frozenset([*TITLES, *BEFORE_NUMBER, "vs", "e.g", "i.e", "St"]) - {"No", "no"}
"""Abbreviations whose full stop does not end a sentence."""

SENTENCE_STARTERS = frozenset(
    "The A An He She It We They You I In On At This That These Those But And So If When Then There His Her My Our "
    "Their What Who Why How However Please For From After Before As With Is Are Was Were Do Does Did Not No Yes Its "
    "Today Yesterday Tomorrow Now Here All Some Many Most Once Meanwhile Also".split()
)
"""Capitalised words that are hardly ever part of a name: a full stop before them ends a sentence."""

# singular, plural
UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"), "kph": ("kilometer per hour", "kilometers per hour"),
    "km/s": ("kilometer per second", "kilometers per second"), "m/s": ("meter per second", "meters per second"),
    "mph": ("mile per hour", "miles per hour"), "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"), "nm": ("nanometer", "nanometers"),
    "m": ("meter", "meters"), "μm": ("micrometer", "micrometers"), "mi": ("mile", "miles"),
    "ft": ("foot", "feet"), "yd": ("yard", "yards"), "kg": ("kilogram", "kilograms"), "g": ("gram", "grams"),
    "mg": ("milligram", "milligrams"), "μg": ("microgram", "micrograms"), "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "L": ("liter", "liters"), "l": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"), "mL": ("milliliter", "milliliters"), "gal": ("gallon", "gallons"),
    "tsp": ("teaspoon", "teaspoons"), "tbsp": ("tablespoon", "tablespoons"),
    "m²": ("square meter", "square meters"), "km²": ("square kilometer", "square kilometers"),
    "cm²": ("square centimeter", "square centimeters"), "ft²": ("square foot", "square feet"),
    "sq ft": ("square foot", "square feet"), "m³": ("cubic meter", "cubic meters"),
    "cm³": ("cubic centimeter", "cubic centimeters"), "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"), "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"), "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"),
    "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"), "MW": ("megawatt", "megawatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"), "V": ("volt", "volts"), "mA": ("milliamp", "milliamps"),
    "mAh": ("milliamp hour", "milliamp hours"), "hPa": ("hectopascal", "hectopascals"),
    "kPa": ("kilopascal", "kilopascals"), "dB": ("decibel", "decibels"),
    "kcal": ("kilocalorie", "kilocalories"), "cal": ("calorie", "calories"), "kJ": ("kilojoule", "kilojoules"),
    "ms": ("millisecond", "milliseconds"), "s": ("second", "seconds"), "sec": ("second", "seconds"),
    "secs": ("second", "seconds"), "min": ("minute", "minutes"), "mins": ("minute", "minutes"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"),
    "rpm": ("revolution per minute", "revolutions per minute"), "bpm": ("beat per minute", "beats per minute"),
    "fps": ("frame per second", "frames per second"), "px": ("pixel", "pixels"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"), "M": ("million", "million"), "bn": ("billion", "billion"),
    "kgs": ("kilogram", "kilograms"), "kms": ("kilometer", "kilometers"), "fl oz": ("fluid ounce", "fluid ounces"),
    "sq mi": ("square mile", "square miles"), "sq m": ("square meter", "square meters"),
}  # fmt: skip

PERIODS = {
    "month": "month", "mo": "month", "year": "year", "yr": "year", "day": "day", "week": "week", "wk": "week",
    "hour": "hour", "hr": "hour", "h": "hour", "night": "night", "person": "person", "unit": "unit", "kg": "kilogram",
    "lb": "pound", "mile": "mile", "gallon": "gallon", "minute": "minute", "min": "minute",
}  # fmt: skip
"""What a price is for, after a slash."""

ONLY_GLUED = frozenset(["s", "h", "V", "W", "M", "l"])
"""Units that after a space could as well be a letter or the start of something else."""

# unit, units, part, parts
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"), "US$": ("U S dollar", "U S dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"), "¥": ("yen", "yen", "", ""), "￥": ("yuan", "yuan", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"), "₩": ("won", "won", "", ""),
    "USD": ("U S dollar", "U S dollars", "cent", "cents"), "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"), "CNY": ("yuan", "yuan", "", ""),
    "RMB": ("yuan", "yuan", "", ""), "JPY": ("yen", "yen", "", ""),
    "Rs": ("rupee", "rupees", "", ""), "Rs.": ("rupee", "rupees", "", ""),
}  # fmt: skip
MAGNITUDES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "b": "billion", "B": "billion",
              "bn": "billion", "tn": "trillion", "T": "trillion"}  # fmt: skip

MONARCHS = frozenset(
    "Henry Louis Elizabeth George Charles Edward James William Richard John Paul Pius Benedict Philip Catherine Peter "
    "Alexander Nicholas Frederick Napoleon Leo Gregory Francis Ivan Mary Robert Ferdinand Ludwig Otto Innocent".split()
)
NUMBERED = frozenset(
    "Chapter Part Act Scene Volume Book Section Phase Type Stage Level Class Title Article Appendix War Bowl Mark "
    "Episode Season Figure Table Grade Vol Round Quarter Type Unit Lesson".split()
)
"""Nouns after which a Roman number is read as a plain number."""
