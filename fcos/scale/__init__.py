"""Past one machine: detection in parts that any engine can run, over images without number; training on Ray."""

from .detector import BatchDetector

__all__ = ["BatchDetector"]
