"""Past one machine: detection in parts that any engine can run, over images without number."""

from .detector import BatchDetector

__all__ = ["BatchDetector"]
