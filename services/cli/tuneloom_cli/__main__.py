"""Entry point: `python -m tuneloom_cli`."""

from tuneloom_cli.app import main

main()
