"""Invented words in several languages, and texts that are awkward on purpose."""

# ruff: noqa: PLR2004, RUF001 - odd characters and patterns are the point
from __future__ import annotations

import random

SENTENCES = (
    "Please check the load table before Friday.",
    "The supplier confirmed the delivery for next week.",
    "Drawings for the east wing are missing two sheets.",
    "Can you call the customer about the invoice?",
    "Bitte prüfen Sie die Maße für das Geländer, größte Öffnung zuerst.",
    "Die Lieferung über Köln verzögert sich um drei Werktage.",
    "Übergabe der Schlüssel erfolgt durch Frau Weiß.",
    "Merci de vérifier l'échéance du chantier à Orléans.",
    "Niño, señal y año: comprobación de la factura.",
    "请在星期五之前检查载荷表。",
    "配送は来週に変更されました。図面を確認してください。",
    "다음 주 회의 자료를 보내 주세요.",
    "يرجى مراجعة جدول الأحمال قبل يوم الجمعة.",
    "נא לבדוק את טבלת העומסים עד יום שישי.",
    "Проверьте, пожалуйста, таблицу нагрузок.",
    "Danke! 🙏🏽 Das Team 👷‍♀️ ist unterwegs 🚧🇩🇪.",
    "Costs: 5 < 7 && 9 > 3; see <https://example.com/a?b=1&c=2>.",
)
TITLES = (
    "Prepare foundation drawings",
    "Order steel",
    "Prüfbericht für Halle 7 abschließen",
    "Angebot nachfassen: Geländer größer 2 m",
    "Vérifier l'étanchéité",
    "检查载荷表",
    "図面の確認",
    "회의 준비",
    "مراجعة الجدول",
    "בדיקת שרטוטים",
    "Проверить смету",
    "🚧 Site visit 👷‍♀️",
    " leading and trailing ",
    "Tab\tand\u200bzero width",
    "O'Brien; DROP TABLE tasks; --",
)
FIRST_NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "Jörg",
    "Zoë",
    "李",
    "さくら",
    "Łukasz",
    "محمد",
    "Noa",
    "Ivan",
    "María José",
)
LAST_NAMES = (
    "Vogt",
    "Okoro",
    "Lindström",
    "Weiß",
    "O'Neill",
    "王",
    "田中",
    "Żak",
    "علي",
    "כהן",
    "Петров",
    "",
)
AWKWARD = (
    "",
    " ",
    "NUL here: \x00 and here \x00.",
    "Bell \x07, escape \x1b[31m, form feed \x0c, delete \x7f, next line \x85.",
    "Line one\r\nLine two\rLine three\u2028Line four",
    "\ufeffByte order mark, soft\u00adhyphen, \u202ereversed\u202c and \ufffd.",
    "𝕬𝖘𝖙𝖗𝖆𝖑 𐍈 👨‍👩‍👧‍👦 e\u0301 z̷a̷l̷g̷o̷",
    '{"json": "inside", "quote": "\\""}',
    "<script>alert(1)</script><b>unclosed <i>tags &amp; &nbsp;&#0; entities",
    "' \" ` \\ % %s {} $1 NULL null \\N \\x00",
)


HUGE = "<table>" + "<tr><td>größer &lt; 7</td></tr>" * 6500 + "</table>"  # Some 200,000 characters.


class Writer:
    """Writes texts from a seeded random source.

    Args:
        source: Decides everything.
    """

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self._paragraphs = [self._paragraph() for _ in range(200)]

    def _paragraph(self) -> str:
        return " ".join(self.random.choice(SENTENCES) for _ in range(self.random.randint(1, 5)))

    def title(self, place: int) -> str:
        """Return a title with a number in it."""
        return f"{TITLES[place % len(TITLES)]} {place}" if place % 41 else AWKWARD[place % len(AWKWARD)]

    def plain(self, place: int) -> str:
        """Return a plain text; each tenth is awkward."""
        if place % 10 == 9:
            return AWKWARD[place // 10 % len(AWKWARD)]
        return "\n\n".join(self.random.choice(self._paragraphs) for _ in range(self.random.randint(1, 3)))

    def markup(self, place: int) -> str:
        """Return an HTML text; each tenth is awkward."""
        if place % 10 == 9:
            return f"<div>{AWKWARD[place // 10 % len(AWKWARD)]}</div>"
        paragraphs = [self.random.choice(self._paragraphs) for _ in range(self.random.randint(1, 4))]
        return "<style>p{color:red}</style>" + "".join(
            f"<p>{text.replace('&', '&amp;').replace('<', '&lt;')}<br></p>" for text in paragraphs
        )
