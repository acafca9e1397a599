"""Numbers as words; every table, chart, log and page says them in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable


def ms(value: float) -> str:
    """Say a latency in milliseconds with three digits.

    >>> ms(690.4), ms(16.04), ms(0.4217), ms(0.00931), ms(12_340), ms(185_000)
    ('690 ms', '16.0 ms', '0.422 ms', '9.31 us', '12.3 s', '3 min 5 s')
    """
    if not math.isfinite(value):
        return "unknown"
    if value < 0:
        return f"-{ms(-value)}"
    if value >= 59_950:
        return duration(value / 1000)
    if value >= 999.5:
        return f"{_three(value / 1000)} s"
    if 0 < value < 0.1:
        return f"{_three(value * 1000)} us"
    return f"{_three(value)} ms"


def size(count: float) -> str:
    """Say a number of bytes in binary units, as PostgreSQL does.

    >>> size(0), size(8192), size(22_487_040), size(5e12), size(-16384)
    ('0 B', '8.00 kB', '21.4 MB', '4.55 TB', '-16.0 kB')
    """
    if not math.isfinite(count):
        return "unknown"
    amount, sign = abs(count), "-" if count < 0 else ""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1024:
            return f"{sign}{amount:.0f} B" if unit == "B" else f"{sign}{_three(amount)} {unit}"
        amount /= 1024
    return f"{sign}{_three(amount)} TB"


def factor(ratio: float) -> str:
    """Say after/before as a direction.

    Args:
        ratio: time after divided by time before.

    >>> factor(16 / 690), factor(1.062), factor(1.0), factor(2.5)
    ('43.1x faster', '1.06x slower', 'unchanged', '2.50x slower')
    """
    if not math.isfinite(ratio) or ratio <= 0:
        return "unknown"
    if ratio < 0.995:
        return f"{_three(1 / ratio)}x faster"
    if ratio <= 1.005:
        return "unchanged"
    return f"{_three(ratio)}x slower"


def duration(seconds: float) -> str:
    """Say a duration.

    >>> duration(0.0314), duration(4.2), duration(75), duration(7322)
    ('31 ms', '4.2 s', '1 min 15 s', '2 h 2 min')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: float) -> str:
    """Say a number of rows, pages or calls.

    >>> count(14279), count(2.5)
    ('14,279', '2.5')
    """
    if not math.isfinite(number):
        return "unknown"
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def cost(amount: float) -> str:
    """Say a cost in the planner's units.

    >>> cost(24517.93), cost(8.446), cost(0.0)
    ('24,518', '8.45', '0')
    """
    if not math.isfinite(amount):
        return "unknown"
    return "0" if amount == 0 else f"-{_three(-amount)}" if amount < 0 else _three(amount)


def increase(before: float, after: float) -> str:
    """Say how much more something costs than before.

    >>> increase(100, 103), increase(100, 350), increase(8, 24000), increase(0, 5)
    ('3% more', '250% more', '3,000 times as much', '5.00 more')
    """
    if before <= 0:
        return f"{cost(after)} more"
    share = after / before - 1
    return f"{share:.0%} more" if share < 9 else f"{share + 1:,.0f} times as much"


def listed(words: Iterable[str], most: int = 4) -> str:
    """Name things in a sentence, not more than a reader takes in.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed("abcdef"), listed([])
    ('a', 'a, b and c', 'a, b, c and 3 more', 'none')
    """
    names = list(words)
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "none"


def gained(times: float, *, decided: bool) -> str:
    """Say how many times faster a headline became, or that its interval leaves it in doubt.

    >>> gained(43.1, decided=True), gained(6.66, decided=False)
    ('43.1x faster', 'not significant')
    """
    return factor(1 / times) if decided else "not significant"


def shortened(text: str, length: int) -> str:
    """Cut the middle out of a long text.

    >>> shortened("abcdefgh", 5), shortened("abc", 5)
    ('ab…gh', 'abc')
    """
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}"


def plural(number: int, noun: str) -> str:
    """Say a number of things.

    >>> plural(1, "index"), plural(3, "index"), plural(2, "query"), plural(0, "key")
    ('1 index', '3 indexes', '2 queries', '0 keys')
    """
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("x", "s", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"


def _three(value: float) -> str:
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    decimals = digits if value >= 0.9995 else 3
    return f"{value:,.{decimals}f}"
