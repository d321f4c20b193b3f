"""FCOS: fully convolutional one-stage object detection, end to end."""

__version__ = "0.1.0"
