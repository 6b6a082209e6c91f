"""Products and quotients of terms with variables: monomials, which count as variables, and a network that has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import prod

import torch

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Concat, Gather, Op, Product, Smooth
from assay.verify.core.ops import Linear as Affine
from assay.verify.frontends.vnnlib.linear import (
    ONE,
    ZERO,
    Form,
    Linear,
    Monomial,
    Name,
    Variable,
    add,
    constant,
    scaled,
)
from assay.verify.frontends.vnnlib.rounding import fit, to_small_integers

MAX_BITS = 2**15  # of a product of numbers
MAX_FACTORS = 16  # with variables
MAX_DEPTH = 8  # of sums of products in each other
MAX_COEFFICIENTS = 2**24  # of all that is multiplied

CURVES = {2: "square", -1: "reciprocal"}


def multiply(terms: Sequence[Linear]) -> Linear:
    """The product.

    Raises :class:`UnsupportedError` for factors whose numbers float64 does not hold in any ratio,
    :class:`ResourceError` where numbers become too long, or factors too many.
    """
    return _product([(term, 1) for term in terms])


def divide(terms: Sequence[Linear]) -> Linear:
    """The first divided by all others.

    Raises :class:`InputError` for zero and fewer than two terms, and what :func:`multiply` raises.
    """
    if len(terms) < 2:
        raise InputError("/ divides by at least 1 term, got 0")
    return _product([(terms[0], 1), *((term, -1) for term in terms[1:])])


def substituted(term: Linear, place: Callable[[Variable], Variable]) -> Linear:
    """The term with other variables in the place of its own."""
    return _summed(term.coefficients.items(), term.constant, place)


def _summed(terms: Iterable[tuple[Name, Fraction]], last: Fraction, place: Callable[[Variable], Variable]) -> Linear:
    parts = [constant(last)]
    for name, factor in terms:
        if isinstance(name, Variable):
            parts.append(Linear({place(name): factor}, ZERO))
        else:
            powers = [(_summed(form.terms, form.constant, place), e) for form, e in name.factors]
            parts.append(scaled(_product(powers), factor))
    return add(parts)


def _product(powers: Sequence[tuple[Linear, int]]) -> Linear:
    """The product of terms to whole powers other than 0."""
    if any(exponent < 0 and not term.coefficients and not term.constant for term, exponent in powers):
        raise InputError("a division by zero")
    numbers = [(term.constant, exponent) for term, exponent in powers if not term.coefficients]
    bits = sum(abs(e) * (value.numerator.bit_length() + value.denominator.bit_length()) for value, e in numbers)
    if bits > MAX_BITS:
        raise ResourceError(f"a product of numbers of more than {MAX_BITS} bits together")
    factor = prod((value**exponent for value, exponent in numbers), start=ONE)
    varied = [(term, exponent) for term, exponent in powers if term.coefficients]
    if len(varied) == 1 and varied[0][1] == 1:
        return scaled(varied[0][0], factor)
    exponents: Counter[tuple[Form, bool]] = Counter()  # what is divided by is not cancelled: it may be 0
    for term, exponent in varied:
        share, form = _primitive(term)
        factor *= share**exponent
        for part, power in _factors(form) if exponent > 0 else ((form, 1),):
            exponents[part, exponent * power > 0] += exponent * power
    if sum(map(abs, exponents.values())) > MAX_FACTORS:
        raise ResourceError(f"a product of more than {MAX_FACTORS} factors with variables")
    if not exponents or not factor:
        return constant(factor)
    ordered = sorted(((form, e) for (form, _), e in exponents.items()), key=lambda power: (str(power[0]), power[1]))
    made = Monomial(tuple(ordered))
    if made.depth > MAX_DEPTH:
        raise ResourceError(f"more than {MAX_DEPTH} sums of products in each other")
    return Linear({made: factor}, ZERO)


def _primitive(term: Linear) -> tuple[Fraction, Form]:
    """The term as a factor and a form: of coprime integers over a power of 2, the first above 0."""
    form = term.form
    values = [factor for _, factor in form.terms] + ([form.constant] if form.constant else [])
    times = to_small_integers(values) * (1 if values[0] > 0 else -1)
    if not fit([value * times for value in values]):
        raise UnsupportedError(f"the numbers of {str(form)[:80]}, which is multiplied, do not fit into float64")
    return 1 / times, Form(tuple((name, factor * times) for name, factor in form.terms), form.constant * times)


def _factors(form: Form) -> tuple[tuple[Form, int], ...]:
    """Those of the monomial that a form is, or the form itself."""
    match form:
        case Form(terms=((Monomial(factors=factors), _),), constant=last) if not last:
            return factors
    return ((form, 1),)


def all_within(monomials: Iterable[Monomial]) -> tuple[Monomial, ...]:
    """These and those that they are made of, each once, after those that it is made of."""
    found: dict[Monomial, None] = {}
    for monomial in monomials:
        if monomial not in found:
            inner = all_within(name for name in monomial.inner if isinstance(name, Monomial))
            found.update(dict.fromkeys((*inner, monomial)))
    return tuple(found)


def products(outputs: int, linked: Sequence[int], monomials: Sequence[Monomial]) -> Network:
    """A network that takes ``outputs`` values and the ``linked`` inputs behind them, and gives these and the
    ``monomials``.

    Raises :class:`ResourceError` for too many.
    """
    builder = Builder((outputs + len(linked),))
    place: dict[Name, int] = {Variable("Y", i): i for i in range(outputs)}
    place |= {Variable("X", position): outputs + i for i, position in enumerate(linked)}
    last = 0
    for depth in range(1, max(monomial.depth for monomial in monomials) + 1):
        group = [monomial for monomial in monomials if monomial.depth == depth]
        last = builder.add(Concat(0), last, _multiplied(builder, last, place, group))
        place |= {monomial: len(place) + i for i, monomial in enumerate(group)}
    order = [*range(outputs + len(linked)), *(place[monomial] for monomial in monomials)]
    return builder.build(_picked(builder, last, order))


def _multiplied(builder: Builder, last: int, place: dict[Name, int], group: Sequence[Monomial]) -> int:
    """The values of monomials, from those at ``last``, where what they are made of has its ``place``."""
    powers = list(dict.fromkeys(power for monomial in group for power in monomial.factors))
    forms = {form: i for i, form in enumerate(dict.fromkeys(form for form, _ in powers))}
    names = {name: i for i, name in enumerate(dict.fromkeys(name for form in forms for name, _ in form.terms))}
    if len(forms) * len(names) > MAX_COEFFICIENTS:
        raise ResourceError(f"{len(forms)} factors of {len(names)} variables: too many")
    weight = torch.zeros(len(forms), len(names), dtype=torch.float64)
    for row, form in zip(weight, forms, strict=True):
        row[[names[name] for name, _ in form.terms]] = torch.tensor([float(c) for _, c in form.terms]).double()
    bias = torch.tensor([float(form.constant) for form in forms], dtype=torch.float64)
    value = builder.add(Affine(weight, bias), _picked(builder, last, [place[name] for name in names]))
    parts, order = [], []
    for exponent in sorted({exponent for _, exponent in powers}):
        own = [power for power in powers if power[1] == exponent]
        part = _picked(builder, value, [forms[form] for form, _ in own])
        parts.append(part if exponent == 1 else builder.add(_curve(exponent), part))
        order += own
    value = builder.add(Concat(0), *parts)
    where = {power: i for i, power in enumerate(order)}
    rows = [[where[power] for power in monomial.factors] for monomial in group]
    while max(map(len, rows)) > 1:
        pairs = [row[i : i + 2] for row in rows for i in range(0, len(row), 2)]
        index = torch.tensor([(*pair, -1)[:2] for pair in pairs])
        value = builder.add(Product(), builder.add(Gather(index.flatten(), (len(pairs), 2), fill=1.0), value))
        begin, halved = 0, []
        for row in rows:
            end = begin + (len(row) + 1) // 2
            halved.append(list(range(begin, end)))
            begin = end
        rows = halved
    return _picked(builder, value, [row[0] for row in rows])


def _curve(exponent: int) -> Op:
    return Smooth(CURVES[exponent]) if exponent in CURVES else Smooth("power", float(exponent))


def _picked(builder: Builder, value: int, index: Sequence[int]) -> int:
    return builder.add(Gather(torch.tensor(list(index)), (len(index),)), value)
