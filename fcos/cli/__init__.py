"""The `fcos` command: one small file a verb. A verb imports what it needs inside its function,
so that `fcos --help` stays fast. Errors of the user end in one line and exit code 2."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import FcosError, ImageWarning, OtherProcess, nearest, one_line, worded
from ..system.door import at_command_line
from ..system.files import sources_kept
from ..system.machine import is_out_of_memory
from ..system.stderr import say
from ..system.threads import limit_threads
from .common import ALONE, PEERS, called_here, for_learning

# Verbs that compute for minutes. Threads that wait for each other by spinning are quickest alone (an image in 20 ms,
# in 33 without), but beside other programs a training step then takes 2 to 15 times as long; alone it gains 4 %.
LONG = ("train", "forecast", "tune")

_DETECTING = (
    "predict",
    "track",
    "serve",
    "explain",
    "export",
    "bench",
)  # verbs to which settings of training are nothing

# Names that options had, which are still understood and not shown.
_BEFORE = {"pictures": "images", "no-pictures": "no-images"}

_STOPPED = 130  # exit code after Ctrl-C, as a shell has it; after another signal it is 128 and its number
_ENDING = ("SIGTERM", "SIGHUP")  # signals that end a command as Ctrl-C does, so that nothing half written stays
_OWN = (*LONG, "serve")  # verbs that take these signals themselves, and else wait in code that no handler interrupts
_SAME = 1.0  # seconds within which a second of them is the same wish

_HERE = os.path.dirname(os.path.dirname(__file__))  # warnings from below it are the program's own

# verb -> module; a module holds `app` (a typer group) or `command`, the verb's function.
VERBS = {
    "demo": "demo",
    "train": "train",
    "forecast": "forecast",
    "tune": "tune",
    "eval": "eval",
    "predict": "predict",
    "track": "track",
    "data": "data",
    "doctor": "doctor",
    "labels": "labels",
    "explain": "explain",
    "study": "study",
    "convert": "convert",
    "export": "export",
    "serve": "serve",
    "bench": "bench",
    "models": "models",
    "info": "info",
    "config": "config",
    "help": "help",
}


class _InOrder(TyperGroup):
    """The verbs in the order of VERBS; by itself typer puts those with verbs of their own last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [verb for verb in VERBS if verb in self.commands]


@functools.cache
def build() -> Callable[..., Any]:
    """The whole command line, as one command; made once, since it takes a tenth of a second."""
    app = typer.Typer(
        cls=_InOrder,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"token_normalize_func": lambda name: _BEFORE.get(name, name)},
        help="FCOS, the anchor-free object detector: train, evaluate, explain, export.",
    )
    for verb, name in VERBS.items():
        module = importlib.import_module(f".{name}", __name__)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb)(_with_torch(module.command, spin=verb not in LONG))

    @app.callback(invoke_without_command=True)
    def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
        if version:
            from ..version import __version__

            typer.echo(f"fcos {__version__}")
            raise typer.Exit

    return typer.main.get_command(app)


def _with_torch(command: Callable[..., Any], spin: bool = True) -> Callable[..., Any]:
    """`command` with torch imported in front of it, without looking for garbage among the half million objects of
    that import, then or later: a quarter of the time until the first image. `spin`: its threads may wait so."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        if "torch" not in sys.modules:
            if not spin:
                os.environ.setdefault("GOMP_SPINCOUNT", "1000")
            limit_threads()
            gc.disable()
            try:
                import torch  # noqa: F401
            finally:
                gc.enable()
            gc.freeze()
        return command(*args, **kwargs)

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never shows a traceback for an FcosError."""
    _open_closed()
    _read_and_write_any_name()
    _tell_warnings()
    interrupted: list[int] = []
    try:
        words = list(arguments) if arguments is not None else None
        try:
            verb = next((word for word in (sys.argv[1:] if words is None else words) if not word.startswith("-")), "")
            with at_command_line(), sources_kept(), _noted(interrupted, () if verb in _OWN else _ENDING):
                code = build()(args=words, prog_name="fcos", standalone_mode=False)
        except SystemExit:
            if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # by which the library met a closed pipe
                raise BrokenPipeError from None
            raise
        finally:
            sys.stdout.flush()  # a full disk is met here, not at the interpreter's end
        if code == _STOPPED:  # what typer makes of a KeyboardInterrupt, without a word
            raise KeyboardInterrupt
    except FcosError as error:
        if not isinstance(error, OtherProcess):
            say(str(error), details=error.details)
        raise SystemExit(error.code) from None
    except KeyboardInterrupt:
        say("stopped")
        raise SystemExit(_stopped_by(interrupted)) from None
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(141) from None
    except OSError as error:
        what = "write the output" if error.filename is None else f"use {error.filename}"
        say(f"cannot {what}: {error.strerror or error}")
        _drop_output()
        raise SystemExit(2) from None
    except Exception as error:
        if interrupted:  # which native code has made another error of
            say("stopped")
            raise SystemExit(_stopped_by(interrupted)) from None
        if is_out_of_memory(error):
            reason = f" ({one_line(str(error), 200)})" if str(error) else ""
            say(f"there is not enough memory{reason}; try a smaller data.size or batch")
            raise SystemExit(2) from None
        if "can't start new thread" in str(error):
            say("the system refuses another thread; raise its limits (ulimit -u, ulimit -v), or ask for fewer")
            raise SystemExit(2) from None
        if "failed to map segment" in str(error):
            reason = one_line(str(error), 200)
            say(f"cannot load a library ({reason}): memory is limited (ulimit -v), or its disk is mounted with noexec")
            raise SystemExit(2) from None
        if not hasattr(error, "format_message"):  # what a wrong command line raises; the class is typer's own
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # no verb was given
            typer.echo(str(error.format_message()).strip(), err=True)
        else:
            say(_usage(error))
        raise SystemExit(2) from None
    finally:
        if "triton" not in sys.modules:  # which counts at the end what nobody collected, and complains
            gc.freeze()  # the interpreter looks through everything once more at its end, except this
    raise SystemExit(code if isinstance(code, int) else 0)


def _read_and_write_any_name() -> None:
    """Names of files need be no text, and no reader of what is told need be there."""
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__ and os.name == "posix":
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Losing()), sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to end
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):  # names of files, which need be no UTF-8: read as the system reads them
        sys.stdin.reconfigure(errors="surrogateescape")


def _tell_warnings() -> None:
    """Say our own warnings in a line, as notes, each once."""
    show = warnings.showwarning
    said: set[str] = set()

    def warn(message: Warning | str, category: type[Warning], *place: Any) -> None:
        ours = category is UserWarning and bool(place) and str(place[0]).startswith(_HERE)
        if "missing from font" in str(message):
            return  # matplotlib's, for each sign; show/fonts.py has said it in a line
        if issubclass(category, ImageWarning) or ours:
            if str(message) not in said:  # Python's own memory is lost wherever a filter is set
                said.add(str(message))
                say(f"note: {message}")
        else:
            show(message, category, *place)

    warnings.showwarning = warn  # type: ignore[assignment]


@contextlib.contextmanager
def _noted(interrupted: list[int], ending: Sequence[str]) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt as ever, as do the signals `ending`, which ask a program to end; its number is
    kept in `interrupted`. What somebody else has set stays: handlers of a program, and what `nohup`, or a script that
    goes on meanwhile, ignores. Processes that are forked within end by these signals as ever."""
    process, when = os.getpid(), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal when
        if os.getpid() != process and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        if interrupted and number != signal.SIGINT and time.monotonic() - when < _SAME:
            return  # sent once more, while what is half written is removed
        interrupted.append(number)
        when = time.monotonic()
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield  # no other may set any
        return
    numbers = [getattr(signal, name) for name in ending if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, *numbers)}
    usual = (signal.default_int_handler, signal.SIG_DFL)
    caught = [n for n, handler in before.items() if handler is usual[n != signal.SIGINT]]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _stopped_by(interrupted: list[int]) -> int:
    """The exit code of a command that was stopped."""
    return 128 + interrupted[0] if interrupted else _STOPPED


class _Losing(io.RawIOBase):
    """stderr, of which a line is lost where the disk is full (`2> log`): no report is worth the work that it tells of.
    A reader that went away ends the run as ever."""

    def write(self, data: Any) -> int:
        try:
            return os.write(2, data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(memoryview(data).cast("B"))

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)


def _open_closed() -> None:
    """A stream that was closed before the start (`fcos ... >&-`) leads nowhere. Else there is none to write to, and the
    next file that is opened has its number: what a library prints would stand in the user's file."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so this stream's own
            os.set_inheritable(number, number <= 2)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _drop_output() -> None:
    """Let what is still to be written go nowhere, or the interpreter tries once more at its end, and complains."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Any) -> str:
    """A wrong option or argument as one line."""
    message = str(error.format_message()).strip()
    verb = " ".join(error.ctx.command_path.split()[1:]) if getattr(error, "ctx", None) else ""
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        message = _unknown_option(error)
    message = worded(message).rstrip(".")
    cause = error.__cause__ or error.__context__
    given = cause.errors()[0].get("input") if hasattr(cause, "errors") else None  # pydantic's, in today's typer
    if isinstance(given, str) and given not in message:
        message = message.replace("': ", f"': {given!r}: ", 1)
    see = " See" if message.endswith("?") else "; see"
    return f"{one_line(message[:1].lower() + message[1:])}{see} fcos {verb}{' ' if verb else ''}--help"


def _unknown_option(error: Any) -> str:
    """What is wrong with an option that does not exist: what it is called here, the nearest that does exist, or the
    setting that it looks like."""
    message = f"no such option: {error.option_name}"
    if not error.option_name.startswith("--") or error.ctx is None:
        return message
    word, command = error.option_name.removeprefix("--"), error.ctx.command
    names = [o[2:] for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
    values: dict[str, Any] = {}
    if "set" in names:
        from ..config import describe
        from ..presets import DEFAULT, preset

        values = {row[0]: row[1] for row in describe(preset(DEFAULT))}
        if error.ctx.info_name in _DETECTING:
            values = {key: value for key, value in values.items() if not for_learning(key)}
    if (peer := word.replace("_", "-")) in PEERS:
        meant = called_here(peer, command)
        return message if meant is None else message + _as_here(meant, command, values)
    near = nearest(word, names)
    if values:
        from ..changes import SYNONYMS, nearest_setting

        key = nearest_setting(word.replace("-", "_"), list(values))
        if key in values and nearest(word, (*near, key.rpartition(".")[2], *SYNONYMS)) != near:
            return message + _as_setting(key, values[key])
    return f"{message}; did you mean --{near[0]}?" if near else message


def _as_here(meant: str, command: Any, values: Mapping[str, Any]) -> str:
    """The end of a message about an option of other programs that is called `meant` here."""
    if meant == ALONE:
        acted = next(p for p in command.params if p.param_type_name == "argument")
        return f"; it stands alone, as {str(acted.metavar or acted.name.upper()).partition('|')[0]}"
    return f"; did you mean {meant}?" if meant.startswith("--") else _as_setting(meant, values.get(meant))


def _as_setting(key: str, value: object) -> str:
    """The end of a message about a setting that was written as an option, with the `value` that a preset has where
    none stands in `key`."""
    if "=" in key:
        return f"; settings are KEY=VALUE: {key}"
    example = f"{value:g}" if type(value) in (int, float) else str(value) if isinstance(value, str) else "VALUE"
    return f"; settings are KEY=VALUE: {key}={example}"
