"""Training: models, SFT and GRPO on TRL's trainers, and what every recipe shares.

`launch` reads the arguments and checks a run before anything heavy is loaded, `model` loads and saves, `sft` and `grpo`
make the trainers, `callbacks` watches them. Rewards are handed in by the recipes.
"""
