"""What detectors of scene graphs share: backbones, boxes as tensors, matching, suppression, images as tensors."""
