"""Data sets, images, augmentation and the training loader."""
