"""A VNN-LIB file of either version as a property."""

from __future__ import annotations

import re
from pathlib import Path

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.frontends.source import read_bytes
from assay.verify.frontends.vnnlib import version1, version2
from assay.verify.frontends.vnnlib.cases import cases
from assay.verify.frontends.vnnlib.declared import Declared
from assay.verify.frontends.vnnlib.property import Property
from assay.verify.frontends.vnnlib.sharing import shared
from assay.verify.frontends.vnnlib.text import Text

MAX_BYTES = 2**27
ONNX = b"\x08"  # the first byte of an ONNX file: the tag of its version

_VERSION = re.compile(r"(?:\s++|;[^\n]*+)*+\(\s*+vnnlib-version\s*+<(\d{1,9}+)\.(\d{1,9}+)>\s*+\)", re.ASCII)


def read_vnnlib(path: str | Path) -> Property:
    """The property in the file ``path``, plain or gzipped; where it is missing, in ``path.gz``.

    Decimals are read exactly; boxes are rounded outward to float64, and their ``inner`` boxes inward.

    Raises :class:`InputError` for what is no VNN-LIB and for inputs without bounds, :class:`UnsupportedError` for
    operators that are not known, :class:`ResourceError` beyond the caps.
    """
    path = Path(path)
    content = read_bytes(path, MAX_BYTES)
    if content.startswith(ONNX) or b"\0" in content[:1000]:
        raise InputError(f"{path} is no text: expected a VNN-LIB file (the network comes first, then the property)")
    return _property(Text(str(path), content.decode("utf-8-sig", errors="replace")), path)


def parse_vnnlib(text: str, name: str = "<text>") -> Property:
    """The property in ``text``, called ``name`` in messages; raises what :func:`read_vnnlib` does."""
    return _property(Text(name, text), None)


def _property(text: Text, source: Path | None) -> Property:
    header = _VERSION.match(text.content)
    version = header[1] if header else "1"
    if version not in ("1", "2"):
        raise text.error(0, f"VNN-LIB {version} is not supported; expected version 1 or 2", UnsupportedError)
    declared: tuple[Declared, ...] = ()
    if version == "2":
        formula, declared = version2.parse(text)
        inputs = sum(port.size for network in declared for port in network.inputs)
        outputs = sum(port.size for network in declared for port in network.outputs)
    else:
        formula, inputs, outputs = version1.Parser(text, header.end() if header else 0).parse()
    with text.located(len(text.content)):
        formula, one = shared(formula, inputs)
        told = cases(formula, max(one) + 1 if one else inputs, outputs)
    return Property(inputs, outputs, told.told, told.warnings, source, told.linked, one, declared, told.monomials)
