"""What libraries would send about their use is off, unless the user turned it on; docs/privacy.md lists it.

`import sgrl` does this, whatever is imported of it: most libraries look at these variables once, when they are
imported themselves, which is before any setting of a recipe is read. Child processes inherit them.
"""

from __future__ import annotations

import os

VARIABLE = "SGRL_TELEMETRY"
"""With "1" in it the libraries keep their own defaults."""

OFF = {
    "DO_NOT_TRACK": "1",  # understood by huggingface_hub and vLLM, and by many others
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it transformers, datasets and TRL
    "VLLM_NO_USAGE_STATS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers would ask a service to convert weights in pickles
    "FIFTYONE_DO_NOT_TRACK": "1",
}


def turn_off() -> None:
    """Set OFF where the user has not, unless VARIABLE is "1"."""
    if os.environ.get(VARIABLE) != "1":
        for name, value in OFF.items():
            os.environ.setdefault(name, value)
