"""Commands of `sgrl` that have no other home: `train`, and `ls` and `cp` of what the package carries."""
