"""python -m sgrl.export"""

import sys

from sgrl.export.command import main
from sgrl.process import run_command

sys.exit(run_command("sgrl export", main))
