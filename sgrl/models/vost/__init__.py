"""VOST-SGG: a detector of scene graphs in video whose queries begin with what a language model said of the frame."""
