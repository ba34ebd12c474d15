"""Where the conf/ tree is and what it offers. Standard library only, so that `--help` is instant."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The conf folder: beside the packages in a checkout, inside the package in an installed wheel."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def groups(extra: Path | None = None) -> dict[str, list[str]]:
    """Group name -> names of its choices, over conf/ and, where given, a user's own folder."""
    found: dict[str, set[str]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for path in root.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}
