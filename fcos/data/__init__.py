"""Data sets, pictures, augmentation and the training loader."""
