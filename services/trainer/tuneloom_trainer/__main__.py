"""Entry point: `python -m tuneloom_trainer`."""

from tuneloom_common.children import die_with_parent
from tuneloom_trainer.app import main

die_with_parent()
main()
