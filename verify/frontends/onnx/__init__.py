"""ONNX files: read into a network, and written from one."""

from __future__ import annotations

from assay.verify.frontends.onnx.read import read_onnx
from assay.verify.frontends.onnx.write import write_onnx

__all__ = ["read_onnx", "write_onnx"]
