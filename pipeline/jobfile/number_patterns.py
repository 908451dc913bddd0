"""Regular expressions of numbers in a range, for the JSON Schema: durations and sizes are text with a unit.

They are in what Python and ECMAScript, which editors use, have in common. Numbers have up to nine digits.
"""

from __future__ import annotations

END = r"(?!\n)$"  # Python's `$` alone is before a last line break too
_MAX_DIGITS = 9
_DECIMALS = r"(?:\.[0-9]{1,3})?"


def whole_up_to(most: int, unit: str) -> str:
    """Returns what matches a number from 0 to `most` and the unit after it; zeros may stand before it."""
    return rf"(?=[0-9]{{1,{_MAX_DIGITS}}}{unit})0*(?:{_up_to(most)}){unit}"


def decimal_within(least: int, most: int, unit: str) -> str:
    """Returns what matches a number with up to three decimals, in a range, and the unit after it.

    least, most: in thousandths.
    """
    whole, part = divmod(least, 1000)
    above = f"(?:{'|'.join(_larger(str(whole)))}){_DECIMALS}|{whole}{_decimals_from(f'{part:03d}')}"
    pattern = f"(?=0*(?:{above}){unit})"
    whole, part = divmod(most, 1000)
    if len(str(whole)) <= _MAX_DIGITS:
        below = f"(?:{_up_to(whole - 1)}){_DECIMALS}|{whole}{_decimals_up_to(f'{part:03d}')}"
        pattern += f"(?=0*(?:{below}){unit})"
    return f"{pattern}[0-9]{{1,{_MAX_DIGITS}}}{_DECIMALS}{unit}"


def _up_to(most: int) -> str:
    """Numbers from 0 to this one."""
    digits = str(most)
    fewer = [f"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    return "|".join([*fewer, *_differing(digits, larger=False), digits])


def _larger(digits: str) -> list[str]:
    """Numbers above this one."""
    more = f"[1-9][0-9]{{{len(digits)},{_MAX_DIGITS - 1}}}"
    return [more, *_differing(digits, larger=True)]


def _differing(digits: str, *, larger: bool) -> list[str]:
    """Numbers of as many digits, larger or smaller than this one: its first digits, another one, and any."""
    found = []
    for index, digit in enumerate(map(int, digits)):
        low, high = (digit + 1, 9) if larger else (0, digit - 1)
        if low <= high:
            rest = len(digits) - index - 1
            found.append(digits[:index] + _one_of(low, high) + (f"[0-9]{{{rest}}}" if rest else ""))
    return found


def _one_of(low: int, high: int) -> str:
    return f"[{low}-{high}]" if low < high else str(low)


def _decimals_from(least: str) -> str:
    """A point and up to three decimals that are at least these three."""
    if not least.strip("0"):
        return _DECIMALS
    exact = least.rstrip("0")
    return rf"\.(?:{'|'.join([*_shorter(least, larger=True), f'{exact}0*'])})"


def _decimals_up_to(most: str) -> str:
    """Nothing, or a point and up to three decimals that are at most these three."""
    return rf"(?:\.(?:{'|'.join([*_shorter(most, larger=False), *(most[:length] for length in (1, 2, 3))])}))?"


def _shorter(decimals: str, *, larger: bool) -> list[str]:
    """As `_differing`, with any or no digits after the one that differs."""
    return [found.replace("{1}", "{0,1}").replace("{2}", "{0,2}") for found in _differing(decimals, larger=larger)]
