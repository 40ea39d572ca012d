#!/bin/sh
# Prints gpu where an NVIDIA driver is loaded, otherwise cpu.
if [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
    echo gpu
else
    echo cpu
fi
