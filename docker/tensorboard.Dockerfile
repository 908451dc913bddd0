# TensorBoard and the command line, without torch: small, and answering at once.
#
# Build arguments: PYTHON and DEBIAN choose the official slim image, BASE any other one.
ARG PYTHON=3.13
ARG DEBIAN=trixie
ARG BASE=python:${PYTHON}-slim-${DEBIAN}

FROM ${BASE}

# One user in both images, so that a volume is writable whichever container is first to use it.
ARG UID=1000
RUN groupadd --gid "$UID" pipeline \
    && useradd --uid "$UID" --gid "$UID" --home-dir /tmp --no-create-home --shell /bin/bash pipeline \
    && install -d -o pipeline -g pipeline /var/lib/pipeline /var/lib/pipeline/queue /var/lib/pipeline/runs \
       /var/lib/pipeline/datasets

COPY docker/tensorboard.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check --progress-bar=off --require-hashes \
       --requirement /tmp/tensorboard.lock \
    && rm /tmp/tensorboard.lock

RUN --mount=type=bind,target=/src,rw \
    /opt/venv/bin/pip install --disable-pip-version-check --quiet --no-index --no-build-isolation --no-deps /src

ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="pipeline-tensorboard" \
      org.opencontainers.image.description="TensorBoard for the runs of the pipeline, and its command line." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENV PATH=/opt/venv/bin:$PATH \
    PIPELINE_HOME=/var/lib/pipeline \
    PIPELINE_REVISION=$REVISION \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
USER ${UID}
WORKDIR /srv
EXPOSE 6006
ENTRYPOINT ["pipeline"]
