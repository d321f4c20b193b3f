"""The version of this package, below everything that records it."""

__version__ = "1.1.0"
