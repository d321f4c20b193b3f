"""fcos models"""

from __future__ import annotations

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False) -> None:
    """List the models that --model takes."""
    import json

    from ..zoo import models

    rows: list[dict[str, object]] = []
    for entry in models().values():
        path = entry.path()
        rows.append(
            {
                "name": entry.name,
                "backbone": entry.config.model.backbone,
                "size": entry.config.data.size,
                "weights": f"bundled, {path.stat().st_size / 1e6:.1f} MB" if path else "none yet",
                "about": entry.about,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    keys = ("name", "size", "weights", "about")
    widths = {k: max(len(k), *(len(str(r[k])) for r in rows)) for k in keys}
    header: dict[str, object] = {k: k for k in keys}
    for row in (header, *rows):
        typer.echo("  ".join(str(row[k]).ljust(widths[k]) for k in keys).rstrip())
