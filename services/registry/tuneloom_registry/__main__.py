"""Entry point: `python -m tuneloom_registry`."""

from tuneloom_common.children import die_with_parent
from tuneloom_registry.app import main

die_with_parent()
main()
