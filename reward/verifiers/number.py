"""number: exactly one number, whatever currency, unit words, label and sentence stand around it (`reading.quantity`).

The comparison is exact (rational)
unless the sample's spec gives `tolerance` or `relative_tolerance`.
"""

import math
from collections.abc import Mapping
from typing import Any

from reward.extract import unwrap
from reward.reading.numbers import close_enough, readings
from reward.reading.quantity import MAX_CHARS, Quantity, parse_quantity
from reward.types import Verdict, Verifier


def prepare(reference: str, params: Mapping[str, Any]) -> Quantity:
    """Read the reference. Raises ValueError when it is not exactly one number or a tolerance is not one either."""
    for name in ("tolerance", "relative_tolerance"):
        given = params[name]
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not math.isfinite(given)
            or given < 0
        ):
            raise ValueError(f"spec.{name}: got {given!r}, wanted a finite number >= 0")
    quantity = parse_quantity(unwrap(reference))
    if quantity is None:
        raise ValueError("wanted exactly one number")
    return quantity


def verify(extracted: str, prepared: Quantity, params: Mapping[str, Any]) -> Verdict:
    """1 when the answer is one number equal to the reference, else 0."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"number: longer than {MAX_CHARS} characters",))
    quantity = parse_quantity(extracted)
    if quantity is None:
        return Verdict(0.0, "unparseable", trace=("number: not exactly one number",))
    values = readings(quantity.value, quantity.percent, prepared.percent)
    equal = any(
        close_enough(v, prepared.value, params["tolerance"], params["relative_tolerance"]) for v in values
    )
    step = f"number: read {quantity.value}{'%' if quantity.percent else ''}, reference {prepared.value}"
    return Verdict(float(equal), trace=(step, "equal" if equal else "different"))


DEFAULTS = {"tolerance": 0, "relative_tolerance": 0}
VERIFIER = Verifier(prepare, verify, DEFAULTS)
