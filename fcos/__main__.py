"""`python -m fcos`, which torchrun and srun can start."""

from .cli import main

if __name__ == "__main__":
    main()
