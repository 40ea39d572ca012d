"""python -m sgrl doctor | inspect | report | draw: is the machine ready, what does the model see, how did the runs do.

python -m sgrl doctor --model MODEL --dataset DATA
python -m sgrl inspect DATA --model MODEL --output build/inspect
python -m sgrl report sft=RUN grpo=RUN --output build/report
python -m sgrl draw RUN --output build/overlays
"""

from __future__ import annotations

import sys

from sgrl.dotted import load
from sgrl.errors import SgrlError, suggest
from sgrl.process import run_command

COMMANDS = {
    "doctor": "sgrl.doctor:main",
    "inspect": "sgrl.inspect:main",
    "report": "sgrl.report.command:main",
    "draw": "sgrl.report.draw:main",
}
HANDED = {"inspect": ("rewards.scorer:scores_of",)}
"""What a command is handed from above. Loaded with the command, so that `doctor` runs where the rest is broken."""


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
        return load(COMMANDS[name])(rest, *map(load, HANDED.get(name, ())))

    return run_command(f"sgrl {name}", run)


if __name__ == "__main__":
    sys.exit(main())
