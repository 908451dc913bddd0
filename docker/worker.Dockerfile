# The worker: PyTorch with the CUDA libraries that its wheels bring, so the base image has none.
#
# Build arguments: PYTHON and DEBIAN choose the official slim image, BASE any other one.
# CUDA=cu126 installs docker/worker-cu126.lock, which `make lock CUDA=cu126` writes, with the help of TORCH_INDEX.
ARG PYTHON=3.13
ARG DEBIAN=trixie
ARG BASE=python:${PYTHON}-slim-${DEBIAN}

FROM ${BASE}

# torch.compile writes C++ and calls a compiler; a Debian Python keeps its headers in a package of their own.
# hadolint ignore=DL3008 # the base image is the builder's choice, and no version is in all of them
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && headers=$(python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
    && set -- g++ \
    && if ! test -e "$headers/Python.h"; then set -- "$@" python3-dev; fi \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null

# One user in both images, so that a volume is writable whichever container is first to use it.
ARG UID=1000
RUN groupadd --gid "$UID" pipeline \
    && useradd --uid "$UID" --gid "$UID" --home-dir /tmp --no-create-home --shell /bin/bash pipeline \
    && install -d -o pipeline -g pipeline /var/lib/pipeline /var/lib/pipeline/queue /var/lib/pipeline/runs \
       /var/lib/pipeline/datasets

ARG CUDA=
ARG TORCH_INDEX=
COPY docker/worker*.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check --progress-bar=off --require-hashes \
       ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement "/tmp/worker${CUDA:+-$CUDA}.lock" \
    && rm /tmp/*.lock

RUN --mount=type=bind,target=/src,rw \
    /opt/venv/bin/pip install --disable-pip-version-check --quiet --no-index --no-build-isolation --no-deps /src

ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="pipeline-worker" \
      org.opencontainers.image.description="Trains image classifiers from the jobs of a queue." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENV PATH=/opt/venv/bin:$PATH \
    PIPELINE_HOME=/var/lib/pipeline \
    PIPELINE_REVISION=$REVISION \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
USER ${UID}
WORKDIR /srv
ENTRYPOINT ["pipeline"]
CMD ["worker"]
