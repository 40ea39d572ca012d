"""Training: SFT and GRPO on TRL's trainers, and what every recipe shares.

`launch` reads the arguments; `run` is what any run needs, `vlm` what one of a vision-language model needs besides;
`rows`, `checks` and `resume` look at a run before its model is loaded, `model` freezes and saves it, `sft` and `grpo`
make the trainers, `callbacks` and `watch` look on. Rewards are handed in by the recipes.
"""
