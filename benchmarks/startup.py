"""How long does a recipe take until it loads the model? CPU time; the imports that nothing works without stand apart.

    python benchmarks/startup.py recipes/grpo_psg.py --config recipes/configs/toy/grpo.yaml --output_dir build/startup

What follows the script's name is a recipe with its options. It runs as ever, until its model would be loaded.
"""

from __future__ import annotations

import runpy
import sys
import time


class ModelWouldLoad(BaseException):
    """Ends the recipe."""


def main() -> None:
    times = [("Python", time.process_time())]
    import torch  # noqa: F401

    times.append(("torch", time.process_time()))
    from transformers import TrainerCallback, TrainingArguments  # noqa: F401

    times.append(("transformers", time.process_time()))
    import datasets  # noqa: F401
    from trl import GRPOConfig, ModelConfig, SFTConfig, TrlParser  # noqa: F401

    times.append(("trl, datasets", time.process_time()))
    import sgrl.training.model

    def stop(*args, **kwargs):
        times.append(("**the recipe and all its checks**", time.process_time()))
        raise ModelWouldLoad

    sgrl.training.model.load_model = stop
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except ModelWouldLoad:
        print("| until the model loads | CPU seconds |\n| --- | --: |")
        before = 0.0
        for name, seconds in times:
            print(f"| {name} | {seconds - before:.2f} |")
            before = seconds
    else:
        sys.exit("the recipe did not load a model")


if __name__ == "__main__":
    main()
