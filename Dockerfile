# Images for a CPU (--target cpu) and for CUDA GPUs (--target cuda), with llmft from its wheel: docs/docker.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# What both have in common: a compiler (torch.compile and Triton need one when they run), folders, a user.
FROM python:${PYTHON}-slim AS base
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 llmft \
 && mkdir /work /cache \
 && chmod 1777 /work /cache
# any user of the host may run it (--user), so the caches are outside of a home
ENV HOME=/home/llmft \
    HF_HOME=/cache/huggingface \
    LLMFT_CACHE=/cache/llmft \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton
COPY constraints.txt /constraints.txt

FROM base AS cuda
# PyPI's torch for Linux brings CUDA's libraries; the host has the driver and the NVIDIA Container Toolkit
RUN pip install --no-cache-dir --constraint /constraints.txt torch==2.13.0
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/llmft-*.whl)[serve]"
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["llmft"]
CMD ["--help"]

# the last stage is what a build without --target makes
FROM base AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint /constraints.txt --index-url "$TORCH_INDEX" torch==2.13.0
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/llmft-*.whl)[serve]"
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["llmft"]
CMD ["--help"]
