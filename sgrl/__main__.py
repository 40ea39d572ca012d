"""python -m sgrl doctor | inspect | report | draw: is the machine ready, what does the model see, how did the runs do.

python -m sgrl doctor --model MODEL --dataset DATA
python -m sgrl inspect DATA --model MODEL --output build/inspect
python -m sgrl report sft=RUN grpo=RUN --output build/report
python -m sgrl draw RUN --output build/overlays
"""

from __future__ import annotations

import importlib
import sys

from sgrl.errors import SgrlError, suggest
from sgrl.process import run_command

COMMANDS = {
    "doctor": "sgrl.doctor",
    "inspect": "sgrl.inspect",
    "report": "sgrl.report.command",
    "draw": "sgrl.report.draw",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a problem that doctor found, 2 for a wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    name, *rest = arguments

    def run() -> int | None:
        if name not in COMMANDS:
            raise SgrlError(f"unknown command {name!r}{suggest(name, COMMANDS)}")
        return importlib.import_module(COMMANDS[name]).main(rest)

    return run_command(f"sgrl {name}", run)


if __name__ == "__main__":
    sys.exit(main())
