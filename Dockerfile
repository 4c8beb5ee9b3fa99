# The GPU profile in a container: the same install.sh that a bare machine runs.
#
#   docker build -t llava-onevision-1.5-rl .
#   docker run --gpus all --shm-size 16g --ulimit memlock=-1 -v "$PWD/pretrained:/recipe/pretrained" \
#       -v "$PWD/data:/recipe/data" -v "$PWD/runs:/recipe/runs" -it llava-onevision-1.5-rl \
#       python -m areal.launcher.local trains/grpo.py --config configs/llavaov15-8b_stage1_grpo.yaml
#
# General-code rewards confine what they run with bubblewrap, which needs user namespaces:
# add --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or leave that answer type out.
#
# devel, not runtime: SGLang compiles kernels at its first start and flash-attn may have to be built (nvcc).
FROM nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 MAX_JOBS=8
RUN apt-get update && apt-get install -y --no-install-recommends \
        bubblewrap ca-certificates g++ git libcairo2 libnuma1 ninja-build python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /recipe
# What installation reads comes first, so that a change elsewhere does not install everything again.
COPY install.sh ./
COPY 3rdparty ./3rdparty
# No driver while an image is built: sgl_kernel, imported by the check at the end of install.sh, links the toolkit's stub.
RUN ln -s libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1 \
    && LD_LIBRARY_PATH=/usr/local/cuda/lib64/stubs:$LD_LIBRARY_PATH bash install.sh --gpu
COPY . .
ENV PATH=/recipe/.venv/bin:$PATH PYTHONPATH=/recipe
CMD ["python", "-m", "utils.doctor", "--config", "configs/llavaov15-8b_stage1_grpo.yaml"]
