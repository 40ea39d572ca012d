"""Training: models, SFT and GRPO on TRL's trainers, and what every recipe shares.

`launch` reads the arguments, `rows` and `resume` check a run before its model is loaded, `model` loads, freezes and
saves, `sft` and `grpo` make the trainers, `callbacks` watches them. Rewards are handed in by the recipes.
"""
