"""The command `coursework`, also where it is interrupted before it knows what to do."""

import sys


def main() -> None:
    """Runs the command and exits."""
    try:
        from coursework.cli import app

        app()
    except KeyboardInterrupt:
        print("coursework: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
