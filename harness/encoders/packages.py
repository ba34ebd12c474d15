"""Packages: which are installed, and in which version, without importing them."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

__all__ = ["missing_package", "version"]


def missing_package(module: str, requirement: str) -> str | None:
    """What to install when `module` cannot be imported, None when it can."""
    return None if find_spec(module) else f"the package {requirement} is not installed: pip install {requirement!r}"
