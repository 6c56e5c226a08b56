"""Words of MediaWiki in its wikis' languages: prefixes of language links, switches, redirects.

A dump says none of them, but for the names of namespaces. The tables hold what the large wikis use; beside them, what
looks like a switch on a line of its own, and like a redirect in capitals, is one.
"""

import re

_CODES = """
aa ab ace ady af als am an ang anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg bbc bcl bdr be
be-tarask be-x-old bg bh bi bjn blk bm bn bo bpy br bs bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs
csb cu cv cy da dag de dga dgo din diq dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon
fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht
hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kaj kbd kbp kcg kg kge ki kj kk kl
km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai
map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds nds-nl ne
new ng nia nl nn no nov nqo nr nrm nso nv ny oc olo om or os pa pag pam pap pcd pcm pdc pdt pfl pi pih pl pms pnb pnt
ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn shy si
simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn
to tok tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za
zea zgh zh zh-classical zh-min-nan zh-yue zu
"""
LANGUAGES = frozenset(_CODES.split())
"""Codes of Wikipedia's languages: a link to one of them is a link in the margin, not in the text."""

_SWITCHES = """
NOTOC FORCETOC TOC NOEDITSECTION NEWSECTIONLINK NONEWSECTIONLINK NOGALLERY HIDDENCAT EXPECTUNUSEDCATEGORY NOCC
EXPECTUNUSEDTEMPLATE NOCONTENTCONVERT NOTITLECONVERT NOTC INDEX NOINDEX STATICREDIRECT DISAMBIG NOGLOBAL ARCHIVEDTALK
KEIN_INHALTSVERZEICHNIS KEININHALTSVERZEICHNIS INHALTSVERZEICHNIS INHALTSVERZEICHNIS_ERZWINGEN
ABSCHNITTE_NICHT_BEARBEITEN KEINE_GALERIE KEINEGALERIE VERSTECKTE_KATEGORIE INDEXIEREN NICHT_INDEXIEREN SANSTDM
AUCUNETDM AUCUNSOMMAIRE FORCERTDM FORCERSOMMAIRE TDM SOMMAIRE SECTIONNONEDITABLE SANSGALERIE AUCUNEGALERIE NOTDC
SIN_TDC FORZAR_TDC FORZARTDC TDC NO_EDITAR_SECCIÓN NOGALERÍA NO_GALERÍA NOINDICE FORZAINDICE INDICE NOGALLERIA
NOMODIFICASEZIONE SEMTDC SEM_SUMÁRIO SEMSUMÁRIO FORCAR_SUMARIO FORCARTDC SUMÁRIO NÃOEDITARSEÇÃO SEMGALERIA GEENINHOUD
GEEN_INHOUD INHOUD_DWINGEN INHOUD NIETBEWERKBARESECTIE GEEN_GALERIJ БЕЗ_ОГЛАВЛЕНИЯ БЕЗ_ОГЛ ОБЯЗ_ОГЛ ОГЛ
ОБЯЗАТЕЛЬНОЕ_ОГЛАВЛЕНИЕ ОГЛАВЛЕНИЕ БЕЗ_РЕДАКТИРОВАНИЯ_РАЗДЕЛА БЕЗ_ГАЛЕРЕИ СКРЫТАЯ_КАТЕГОРИЯ ИНДЕКС БЕЗ_ИНДЕКСА
БЕЗ_ЗМІСТУ ОБОВ_ЗМІСТ ЗМІСТ БЕЗСПИСУ ZE_SPISEM BEZ_SPISU BEZSPISU SPIS_TREŚCI BEZEDYCJISEKCJI
_NAMES = "|".join(re.escape(name) for name in sorted(_SWITCHES.split(), key=len, reverse=True))
_SWITCH = re.compile(f"__(?:{_NAMES})__", re.I)
強制目錄 目录 目錄 无编辑段落 목차숨김 목차보이기 목차 بدون_فهرست بی‌فهرست بافهرست فهرست لافهرس
"""
_SWITCH = re.compile(rf"__(?:{'|'.join(map(re.escape, sorted(_SWITCHES.split(), key=len, reverse=True)))})__", re.I)
_SWITCH_LINE = re.compile(r"^[ \t]*__[^\W_](?:[^\W_]|_(?!_)){1,40}__[ \t]*$", re.M)
_REDIRECT = re.compile(
    r"\s*#\s*(?:REDIRECT(?:ION)?|WEITERLEITUNG|REDIRECCI[ÓO]N|RINVIA|DOORVERWIJZING|REDIRECIONAMENTO|"
    r"перенаправление|перенапр|перенаправлення|пренасочване|преусмјери|преусмери|patrz|przekieruj|tam|omdirigering|"
    r"viderestilling|omdiriger|ohjaus|uudelleenohjaus|átirányítás|redirecteaza|presmeruj|přesměruj|yönlendirme|"
    r"alih|đổi|転送|リダイレクト|重定向|重新導向|넘겨주기|تغییر_?مسیر|تحويل|הפניה|पुनर्प्रेषित|redirecionamento|"
    r"birzuzendu|suuna|ανακατευθυνση|preusmeritev|nukreipimas|aldonigu|alidirektu)\b[^\[\n]{0,20}\[\[",
    re.I,
)
_REDIRECT_IN_CAPITALS = re.compile(r"\s*#[ \t]*([^\W\d_]{4,24})[ \t]*:?[ \t]*\[\[[^\[\]\n]{1,300}\]\][ \t]*(?:\n|$)")


def is_redirect(markup: str) -> bool:
    """True for a page that only leads to another, where the dump's own element does not say so."""
    if _REDIRECT.match(markup):
        return True
    found = _REDIRECT_IN_CAPITALS.match(markup)
    return found is not None and found[1] == found[1].upper() and len(markup) < 2000


def without_switches(text: str) -> str:
    """A text without `__NOTOC__` and the like: names on a line of their own, and known ones anywhere."""
    if "__" not in text:
        return text
    return _SWITCH.sub("", _SWITCH_LINE.sub(lambda match: match[0] if _is_code(match[0]) else "", text))


def _is_code(line: str) -> bool:
    return line.strip() in ("__FILE__", "__LINE__", "__DATE__", "__TIME__", "__FUNCTION__") or any(
        map(str.islower, line)
    )
