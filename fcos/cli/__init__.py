"""The `fcos` command: one small file a verb. A verb imports what it needs inside its function,
so that `fcos --help` stays fast. Errors of the user end in one line and exit code 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from ..errors import FcosError, OtherProcess

# verb -> module; a module holds `app` (a typer group) or `command`, the verb's function.
VERBS = {
    "demo": "demo",
    "train": "train",
    "eval": "eval",
    "predict": "predict",
    "data": "data",
    "doctor": "doctor",
    "explain": "explain",
    "study": "study",
    "convert": "convert",
    "export": "export",
    "bench": "bench",
    "models": "models",
    "info": "info",
    "config": "config",
}


def build() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="FCOS, the anchor-free object detector: train, evaluate, explain, export.",
    )
    for verb, name in VERBS.items():
        module = importlib.import_module(f".{name}", __name__)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb)(module.command)

    @app.callback(invoke_without_command=True)
    def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
        if version:
            from .. import __version__

            typer.echo(f"fcos {__version__}")
            raise typer.Exit

    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never shows a traceback for an FcosError."""
    try:
        build()(args=list(arguments) if arguments is not None else None)
    except FcosError as error:
        if not isinstance(error, OtherProcess):
            sys.stderr.write(f"fcos: {error}\n")
        raise SystemExit(error.code) from None
    except KeyboardInterrupt:
        sys.stderr.write("fcos: stopped\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
