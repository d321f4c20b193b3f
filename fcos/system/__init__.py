"""The system around the paper: files and addresses, read with limits and written whole; this machine; the terminal."""
