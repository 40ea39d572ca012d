"""What is true of vision-language models, in training and inference alike.

`families` is the table of the families; `folder` loads what a model folder holds, `parts` knows where things are in a
model; `processor` is about pixels and visual tokens, `template` about the chat template, `chat` about prompts.
"""
