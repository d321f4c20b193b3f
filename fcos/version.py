"""The version of this package, below everything that records it."""

__version__ = "1.0.0"
