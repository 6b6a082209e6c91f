"""A :class:`Question` as SMT-LIB: exactly, or relaxed to short numbers.

A ReLU ``a`` of ``z`` is ``a >= 0``, ``a >= z``, ``a <= z or a <= 0``, with the upper line of the triangle (Ehlers 2017,
arXiv:1705.01320) and its bounds, which are rounded outward to short numbers; a jump is on either of its sides. In the
relaxed form every coefficient is rounded to a few bits, every interval of an input outward, and each row is given the
room that this may cost at most within the bounds: what satisfies the exact form satisfies the relaxed one, so that
"unsat" is a proof in either. Short numbers stay short for longer in the solver's simplex; it is several times faster
on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from assay.verify.backends.smt.question import Form, Question, ceil_to, floor_to, power_of_two

SHORT = 8  # bits of slopes and bounds


def script(
    question: Question,
    disjunct: int,
    threshold: Fraction,
    strict: bool = False,
    bits: int = 0,
    apart: Fraction = Fraction(0),
) -> str:
    """Is there an input at which all rows of the disjunct are at most ``threshold`` (below it if ``strict``)?

    ``bits``: of the coefficients; 0 is the exact form. ``apart``: how far from jumps inputs are at least, as a share of
    what is jumped over. Input and neuron j are called ``xj``.
    """
    rows, bounds, inputs = question.disjuncts[disjunct], question.bounds, len(question.box)
    lines = []
    for j in question.concerned([*rows, *question.limits]):
        low, high = bounds[j]
        if j < inputs:
            grid = power_of_two(high - low) / 2**bits if bits else Fraction(0)
            low, high = (floor_to(low, grid), ceil_to(high, grid)) if bits else (low, high)
            lines.append(f"(declare-const x{j} Real)(assert (and (>= x{j} {number(low)}) (<= x{j} {number(high)})))")
        else:
            lines += _neuron(question, j, bounds, bits, apart)
    for limit in question.limits:
        form, room = shortened(limit, bounds, bits)
        lines.append(f"(assert (<= {linear(form)} {number(room)}))")
    sign = "<" if strict else "<="
    for row in rows:
        form, room = shortened(row, bounds, bits)
        lines.append(f"(assert ({sign} {linear(form)} {number(threshold + room)}))")
    return "\n".join(lines)


def piece(question: Question, disjunct: int, values: Sequence[Fraction]) -> str:
    """The least value ``t`` that bounds the disjunct's rows where every neuron is on the side on which it is at
    ``values``: a ReLU of 0 is active. Both sides of a jump are closed here."""
    rows, inputs = question.disjuncts[disjunct], len(question.box)
    lines = ["(declare-const t Real)"]
    for j in question.concerned([*rows, *question.limits]):
        lines.append(f"(declare-const x{j} Real)")
        if j < inputs:
            low, high = question.box[j]
            lines.append(f"(assert (and (>= x{j} {number(low)}) (<= x{j} {number(high)})))")
        else:
            neuron = question.neurons[j - inputs]
            z, above = neuron.z, "1.0" if neuron.jump else "z"
            active = values[j] == 1 if neuron.jump else z.at(values) >= 0
            same = f"(and (>= z 0.0) (= x{j} {above}))" if active else f"(and (<= z 0.0) (= x{j} 0.0))"
            lines.append(f"(assert (let ((z {linear(z)})) {same}))")
    lines += [f"(assert (<= {linear(limit)} 0.0))" for limit in question.limits]
    lines += [f"(assert (<= {linear(row)} t))" for row in rows]
    return "\n".join([*lines, "(minimize t)"])


def shortened(form: Form, bounds: Sequence[tuple[Fraction, Fraction]], bits: int) -> tuple[Form, Fraction]:
    """A form with coefficients of about so many bits, and how far the two may be apart at most within the bounds.

    Each coefficient is rounded to what its variable's width makes of it: equal shares of the form's own width.
    """
    widths = {j: bounds[j][1] - bounds[j][0] for j, _ in form.terms}
    total = sum((abs(c) * widths[j] for j, c in form.terms), Fraction(0))
    if not bits or not total:
        return form, Fraction(0)
    grid = power_of_two(total) / 2**bits
    terms, lost = [], []
    for j, c in form.terms:
        step = grid / power_of_two(widths[j])
        short = floor_to(c + step / 2, step)
        if short:
            terms.append((j, short))
        if short != c:
            lost.append((j, c - short))
    low, high = Form(tuple(lost), form.constant).range(bounds)
    middle = floor_to((low + high) / 2, grid / 4)
    room = max(high - middle, middle - low)
    return Form(tuple(terms), middle), ceil_to(room, power_of_two(room) / 2**SHORT) if room else room


def _neuron(
    question: Question, j: int, bounds: Sequence[tuple[Fraction, Fraction]], bits: int, apart: Fraction
) -> list[str]:
    neuron = question.neurons[j - len(question.box)]
    form, room = shortened(neuron.z, bounds, bits)
    if neuron.jump:
        # Without room each side is what it is; with some, or apart from the jump, both are closed.
        closed = bool(bits or apart)
        above, below = (">=", "<=") if closed else (neuron.jump, "<" if neuron.jump == ">=" else "<=")
        room -= apart * (neuron.upper - neuron.lower)
        return [
            f"(declare-const x{j} Real)",
            f"(assert (let ((z {linear(form)})) (or",
            f"  (and (= x{j} 1.0) ({above} z {number(-room)})) (and (= x{j} 0.0) ({below} z {number(room)})))))",
        ]
    low, high = (r(v, power_of_two(abs(v)) / 2**SHORT) for r, v in ((floor_to, neuron.lower), (ceil_to, neuron.upper)))
    # Any slope in [0, 1] lies above max(z, 0) on [low, high] with this intercept.
    slope = ceil_to(high / (high - low), Fraction(1, 2**SHORT))
    intercept = max(-slope * low, (1 - slope) * high)
    intercept = ceil_to(intercept, power_of_two(intercept) / 2**SHORT) if intercept else intercept
    return [
        f"(declare-const x{j} Real)",
        f"(assert (let ((z {linear(form)})) (and",
        f"  (>= x{j} 0.0) (<= x{j} {number(high)})",
        f"  (>= x{j} (- z {number(room)}))",
        f"  (or (<= x{j} (+ z {number(room)})) (<= x{j} 0.0))",
        f"  (<= x{j} (+ (* {number(slope)} z) {number(intercept + slope * room)})))))",
    ]


def linear(form: Form) -> str:
    """A form as a term."""
    parts = [f"(* {number(c)} x{j})" for j, c in form.terms]
    if form.constant or not parts:
        parts.append(number(form.constant))
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def number(value: Fraction) -> str:
    """A rational number as a term."""
    whole = f"{abs(value.numerator)}.0"
    text = whole if value.denominator == 1 else f"(/ {whole} {value.denominator}.0)"
    return f"(- {text})" if value < 0 else text
