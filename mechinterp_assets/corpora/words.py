"""Word lists of the structured corpus: people, places, objects, verbs, sequences and small facts.

Only words belong here; how they are put together is in `name_moving` and `structured`.
"""


def word_list(text: str) -> tuple[str, ...]:
    """The words of a text, in order."""
    return tuple(text.split())


MALE_NAMES: tuple[str, ...] = word_list(
    """John Tom James Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew
    Anthony Mark Paul Steven Andrew Kenneth George Kevin Brian Edward Ronald Timothy Jason Jeffrey
    Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Frank Benjamin
    Gregory Samuel Raymond Patrick Alexander Jack Dennis Jerry Henry Peter Simon Martin Arthur Adam
    Luke"""
)
FEMALE_NAMES: tuple[str, ...] = word_list(
    """Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Nancy Lisa Margaret
    Betty Sandra Ashley Dorothy Kimberly Emily Donna Michelle Carol Amanda Melissa Deborah
    Stephanie Rebecca Laura Sharon Cynthia Kathleen Amy Shirley Angela Helen Anna Brenda Pamela
    Nicole Ruth Katherine Emma Alice Jane Rose Grace Lucy Kate"""
)
NAMES: tuple[str, ...] = (*MALE_NAMES, *FEMALE_NAMES)

PLACES: tuple[str, ...] = word_list(
    """store garden restaurant school hospital office house station park beach library market
    kitchen church farm river theatre garage cafe museum harbour castle bakery village forest
    bridge hotel factory island tower"""
)
OBJECTS: tuple[str, ...] = word_list(
    """ring kiss bone basketball computer necklace drink snack book letter flower hat coat apple
    lamp coin map key pen cup box ticket photo gift blanket kite watch basket candle knife mirror
    ball spoon bottle ribbon button rope sword bell clock"""
)
COLOURS: tuple[str, ...] = word_list(
    "red blue green yellow black white brown orange purple grey pink silver"
)
ADJECTIVES: tuple[str, ...] = word_list(
    "old new small large heavy broken beautiful strange cheap wooden shiny dusty lost tiny"
)
ANIMALS: tuple[str, ...] = word_list(
    "dog cat horse cow sheep bird fish mouse rabbit fox goat duck bear wolf lion"
)
CITIES: tuple[str, ...] = word_list(
    "London Paris Rome Berlin Madrid Vienna Dublin Athens Lisbon Cairo Tokyo Moscow"
)
JOBS: tuple[str, ...] = word_list(
    """teacher doctor farmer baker sailor lawyer painter driver nurse gardener soldier writer
    singer judge captain"""
)
NONSENSE: tuple[str, ...] = word_list(
    """blim tovar zek purnal quill dax mibo fenwig sorp lantu grobe whid yarn plonk ibex nard kelp
    vosk trum jibe rask oblo hent cwm drift saffa murl penta zorb tilt"""
)

DAYS: tuple[str, ...] = word_list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS: tuple[str, ...] = word_list(
    """January February March April May June July August September October November
    December"""
)
NUMBER_WORDS: tuple[str, ...] = word_list(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty"""
)
ORDINALS: tuple[str, ...] = word_list(
    "first second third fourth fifth sixth seventh eighth ninth tenth"
)
ROMAN_NUMERALS: tuple[str, ...] = word_list("I II III IV V VI VII VIII IX X XI XII")
SEASONS: tuple[str, ...] = word_list("spring summer autumn winter")
LETTERS: tuple[str, ...] = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

CAPITALS: tuple[tuple[str, str], ...] = (
    ("England", "London"),
    ("France", "Paris"),
    ("Italy", "Rome"),
    ("Germany", "Berlin"),
    ("Spain", "Madrid"),
    ("Austria", "Vienna"),
    ("Ireland", "Dublin"),
    ("Greece", "Athens"),
    ("Portugal", "Lisbon"),
    ("Egypt", "Cairo"),
    ("Japan", "Tokyo"),
    ("Russia", "Moscow"),
)
OPPOSITES: tuple[tuple[str, str], ...] = (
    ("hot", "cold"),
    ("big", "small"),
    ("young", "old"),
    ("rich", "poor"),
    ("happy", "sad"),
    ("light", "dark"),
    ("open", "closed"),
    ("early", "late"),
    ("strong", "weak"),
    ("wet", "dry"),
    ("full", "empty"),
    ("loud", "quiet"),
)
PLURALS: tuple[tuple[str, str], ...] = (
    ("key", "keys"),
    ("book", "books"),
    ("child", "children"),
    ("man", "men"),
    ("woman", "women"),
    ("tree", "trees"),
    ("house", "houses"),
    ("horse", "horses"),
    ("letter", "letters"),
    ("mouse", "mice"),
    ("coin", "coins"),
    ("friend", "friends"),
)
ANIMAL_SOUNDS: tuple[tuple[str, str], ...] = (
    ("dog", "barks"),
    ("cat", "meows"),
    ("cow", "moos"),
    ("duck", "quacks"),
    ("lion", "roars"),
    ("wolf", "howls"),
    ("sheep", "bleats"),
    ("horse", "neighs"),
)
