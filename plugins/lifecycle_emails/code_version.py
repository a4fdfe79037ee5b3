"""Which code this is: the package's version, and a hash over its files.

The hash tells apart what the version does not: a copied plugins folder, a checkout between two releases. Must
not know what it is written beside.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

__version__ = "0.1.0"

_SUFFIXES = (".py", ".sql", ".j2")


@cache
def code_version() -> str:
    """Give ``<version>+<hash>``; the hash is the same wherever the files are. Read once per process."""
    digest = hashlib.sha256()
    for name, content in sorted(_contents(files("lifecycle_emails"), "")):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return f"{__version__}+{digest.hexdigest()[:10]}"


def _contents(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            found += _contents(entry, name)
        elif entry.name.endswith(_SUFFIXES):
            found.append((name, entry.read_bytes()))
    return found
