"""The `fcos` command."""


def main() -> None:
    raise SystemExit("being built")
