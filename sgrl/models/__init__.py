"""Models: what is true of each kind, whoever runs it. Training and inference stand beside each other on this."""
