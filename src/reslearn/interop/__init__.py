"""Weights in and out: so far the bundle, our own one-file form."""

from reslearn.interop.bundle import Bundle, BundleError, read_bundle, to_bytes

__all__ = ["Bundle", "BundleError", "read_bundle", "to_bytes"]
