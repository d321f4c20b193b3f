"""The errors a user can meet. Each is one line that names the thing, the value and the fix.

The command line prints the line and exits with code 2; nobody sees a traceback for bad input.
"""

import importlib
from types import ModuleType


class FcosError(Exception):
    """Base of every error caused by input, not by a bug. The message is one line for a person."""

    code = 2  # exit status of the command line


class ConfigError(FcosError):
    """A setting that does not exist or has a wrong value."""


class DataError(FcosError):
    """A data set that cannot be used as it is."""


class ImageError(DataError):
    """One picture that cannot be read."""


class ModelError(FcosError):
    """A model name, weights file or checkpoint that cannot be used."""


class DeviceError(FcosError):
    """A device that is not there."""


class OtherProcess(FcosError):
    """Another process of the run has met an error and tells of it; there is nothing more to print."""

    def __init__(self, line: str, code: int = 2) -> None:
        super().__init__(line)
        self.code = code


class MissingExtra(FcosError):
    """An optional dependency that is not installed; the message is the install line."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` naming the pip extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs {module.partition('.')[0]}, which is not installed: "
            f"pip install 'fcos-detector[{extra}]' ({error})"
        ) from error
