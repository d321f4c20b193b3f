"""The SHA-256 of itself that every exported file carries, so that one that was cut or changed is refused when it is
opened; the runtimes take many of those and compute something else. It guards against damage, not against forgery.

The digest stands in the file's metadata, and is that of the file with zeros in its place, and of the files beside it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import ModelError
from ..system.readers import open_file

UNSET = "0" * 64
GRAPH_LIMIT = 2 << 30  # bytes of a file that holds metadata and graph: protobuf's own limit
_ANY = 1 << 50
# As `About.to_text` writes it; in an attribute of XML the quotes are spelt out.
_PLACE = re.compile(rb"""((?:"|&quot;)sha256(?:"|&quot;):[ ](?:"|&quot;))([0-9a-f]{64})""")


def sealed(content: bytes, *others: Path) -> bytes:
    """The content of a file whose metadata has UNSET for its digest, with the digest of it and of the files beside it
    in that place."""
    digest = _digest(content, others)
    result, count = _PLACE.subn(rb"\g<1>" + digest.encode(), content)
    assert count == 1, count
    return result


def check(path: Path, content: bytes, *others: Path) -> None:
    """ModelError where the `content` of `path`, or a file beside it, is not what was sealed. A content without any
    metadata of `fcos export` passes: `about.from_text` refuses it."""
    places = list(_PLACE.finditer(content))
    if not places:
        return
    start, end = places[0].span(2)
    blank = content[:start] + UNSET.encode() + content[end:]
    if len(places) > 1 or _digest(blank, others) != places[0][2].decode():
        raise not_whole(path)


def not_whole(path: Path) -> ModelError:
    """What to raise for a file that is not as it was written."""
    return ModelError(
        f"{path} is not as fcos export wrote it: cut short, changed, or apart from its files; export it again"
    )


def _digest(content: bytes, others: tuple[Path, ...]) -> str:
    digest = hashlib.sha256(content)
    for path in others:
        with open_file(path, _ANY, ModelError) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
