"""Detects the language of a text by its script and by the function words that every sentence has.

A short list per language is enough: the words of one language must only be clearly more frequent than those of others.
The same words are left out of queries. The names of languages are those of the Snowball stemmers.
"""

import re
from collections import Counter

_SAMPLE = 20_000
_WORD = re.compile(r"[^\W\d_]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "english": _words(
        """a about above after again all also am an and any are as at be because been before being below between both
        but by can could did do does doing down during each few for from further had has have having he her here hers
        him his how i if in into is it its itself just me more most my no nor not now of off on once only or other our
        out over own same she should so some such than that the their them then there these they this those through to
        too under until up us very was we were what when where which while who whom whose why will with would you
        your"""
    ),
    "german": _words(
        """aber als am an auch auf aus bei bis da das dass dem den der des die durch ein eine einem einen einer er es
        für hat ich ihr im in ist kann mit nach nicht noch nur oder sich sie sind so über um und uns unter vom von vor
        war was wenn werden wer wie wir wird wo wurde zu zum zur"""
    ),
    "french": _words(
        """à au aux avec ce ces cette comme dans de des du elle en est et il ils je la le les leur lui mais ne nous on
        ou où par pas plus pour qu que quel quelle qui sa se ses son sont sur un une vous"""
    ),
    "spanish": _words(
        """a al como con cómo cuál cuándo de del donde dónde el ella en entre es esta este la las lo los más me muy no
        o para pero por que qué quién se ser si sin sobre son su sus también un una y ya"""
    ),
    "italian": _words(
        """a ai al alla anche che chi ci come con da dal dei del della delle di dove e è gli ha i il in la le lo ma nel
        nella non o per più quale quando questo se si sono su sul tra un una"""
    ),
    "portuguese": _words(
        """a ao aos as até com como da das de do dos e é ela ele em entre foi mais mas na nas não no nos o onde os ou
        para pela pelo por qual quando que quem se sem ser seu sua são também um uma"""
    ),
    "dutch": _words(
        """aan al als bij dan dat de der deze die dit door een en er haar had heeft het hij hoe ik in is je kan maar
        met naar niet nog of om onder ook op over te tot uit van voor waar wat we werd wie wordt ze zich zijn zo"""
    ),
    "swedish": _words(
        """alla än är att av blev de den det dig du efter eller en ett för från han har hon hur i inte jag kan man med
        mellan men när nu och om på sig sin som till under upp ut vad var vem vid vi"""
    ),
    "danish": _words(
        """af alle at blev da de den der det dig du efter eller en er et for fra han har hun hvad hvem hvor hvordan i
        ikke jeg kan med men mellem når nu og om op på sig sin skal som til ud under var ved vi"""
    ),
    "norwegian": _words(
        """alle at av ble da de den der det deg du eller en er et etter for fra han har hun hva hvem hvor hvordan i ikke
        jeg kan med men mellom når nå og om opp på seg sin skal som til under ut var ved vi"""
    ),
    "finnish": _words(
        """että ei eli en ennen hän he hyvin ja jo joka jos jotka kanssa koska kuin kuinka kun me mikä mitä missä mutta
        myös ne niin nyt oli olla on ovat se sekä sen siitä sitä tai tämä vain"""
    ),
    "polish": _words(
        """ale by być co czy dla do gdy gdzie go i ich jak jako jest jej już kto który ma na nie o od oraz po pod przez
        przy się są ta tak te tego to tylko w we z za ze że"""
    ),
    "czech": _words(
        """a aby ale ani co či do i jak jako je jeho jen ještě jsou k kde kdo kdy která který má na nebo o od po pod
        podle pro při s se si tak to u v ve z za ze že"""
    ),
    "hungarian": _words(
        """a az be csak de e egy el és ez ezt fel hogy hol ha is ki kell le meg mely mi mint mit most nem s szerint vagy
        van volt"""
    ),
    "romanian": _words(
        """a al ale au când care ce cea cei cel cu cum de din după este fi fost în la mai nu o pe pentru prin sau să se
        și sunt un unde unei unui"""
    ),
    "turkish": _words(
        """ama bir bu çok da daha de değil diye en gibi hangi hem her için ile kadar ki kim mı mi mu nasıl ne neden
        nerede o olan olarak sonra ve veya ya"""
    ),
    "indonesian": _words(
        """ada adalah akan apa atau bagaimana bahwa bisa dalam dan dapat dari dengan di dia hari ini itu juga karena ke
        lebih mana oleh pada para saat sebagai seperti siapa sudah telah tidak untuk yang"""
    ),
    "russian": _words(
        """а без бы был была были было в вы где для до его ее если есть же за и из или им их к как когда который кто ли
        мы на не но о об он она они от по при с со так то только у что это"""
    ),
}

# A script that few languages use decides the language. For the Latin script, the words decide.
_SCRIPTS = (
    (re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"), None),
    (re.compile("[\u0370-\u03ff]"), "greek"),
    (re.compile("[\u0400-\u04ff]"), "russian"),
    (re.compile("[\u0530-\u058f]"), "armenian"),
    (re.compile("[\u0600-\u06ff]"), "arabic"),
    (re.compile("[\u0900-\u097f]"), "hindi"),
    (re.compile("[\u0b80-\u0bff]"), "tamil"),
    (re.compile("[\u0590-\u05ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"), None),
)
_LETTER = re.compile(r"[^\W\d_]")


def detect_language(text: str) -> str | None:
    """The language of a text, by the name of its stemmer. None if it has no stemmer, or if the language is unclear."""
    sample = text[:_SAMPLE]
    letters = len(_LETTER.findall(sample))
    for script, language in _SCRIPTS:
        if len(script.findall(sample)) > 0.3 * letters > 0:
            return language
    counts = Counter(_WORD.findall(sample.casefold()))
    votes = {name: sum(counts[word] for word in words) for name, words in FUNCTION_WORDS.items()}
    best = max(votes, key=votes.__getitem__)
    # Names, code and tables have few function words. Plain ASCII is most often English.
    if votes[best] >= max(2, 0.08 * counts.total()):
        return best
    return "english" if sample.isascii() else None
