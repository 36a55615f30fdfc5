# The study and everything that it needs, for machines on which nothing is installed but Docker or Apptainer.
#
#   make image                                       build it, from a commit
#   make demo-in-image                               run the demonstration in it
#   docker run --rm robustviews robustviews doctor   what it is
#
# It must build with Docker 20.10 without a registry, so it has no `# syntax=`, no heredoc and no `COPY --link`.

# torch brings its own CUDA libraries: a slim Python is enough for a GPU too, given NVIDIA's container toolkit on the
# host. Any other Debian or Ubuntu serves as well, such as nvidia/cuda:13.0.1-base-ubuntu24.04. To pin the digest of
# another base: docker buildx imagetools inspect TAG, then --build-arg BASE_IMAGE=TAG@sha256:...
ARG BASE_IMAGE=python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1

# hadolint ignore=DL3006  # the tag, and the digest, are the argument's
FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH
# torch.compile calls the C compiler on a GPU; downloads of data ask for certificates, which not every base has.
# The versions are those of whichever base was chosen.
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    set --; \
    python3 -c 'import ensurepip' 2>/dev/null || set -- python3-dev python3-venv; \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev "$@"


FROM base AS packages
# As `make setup`: pip brings the locked uv, and uv all the rest. Behind a package mirror, tell both without leaving a
# trace in the image: --secret id=pip,src=$HOME/.config/pip/pip.conf --secret id=uv,src=$HOME/.config/uv/uv.toml
ENV XDG_CACHE_HOME=/var/cache/packages
WORKDIR /build
COPY requirements.lock ./
# hadolint ignore=DL3042  # the cache is no part of the image
RUN --mount=type=cache,target=/var/cache/packages --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer in the base image")' && \
    python3 -m venv /opt/venv && \
    awk '/^[^ #]/ { uv = /^uv==/ } uv' requirements.lock >uv.requirements && \
    python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv.requirements
# With bytecode, which a read-only root cannot add.
RUN --mount=type=cache,target=/var/cache/packages --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    UV_LINK_MODE=copy uv pip sync --quiet --python /opt/venv/bin/python --compile-bytecode --require-hashes \
        --build-constraints requirements.lock requirements.lock


FROM base
COPY --from=packages /opt/venv /opt/venv
WORKDIR /robustviews
COPY docker/entrypoint /usr/local/bin/
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
COPY workflow workflow
COPY params.yaml ./
COPY studies studies

# What `make image` knows and a folder without .git does not. A wrong hash must not become a label.
ARG REVISION=
ARG LOCK=
RUN --mount=type=tmpfs,target=/tmp \
    found=$(sha256sum requirements.lock) && \
    if [ "${LOCK:-${found%% *}}" != "${found%% *}" ]; then echo "expected a lock $LOCK, found $found"; exit 1; fi && \
    if [ -n "$REVISION" ]; then echo "$REVISION" >COMMIT; fi && \
    uv pip install --quiet --offline --no-cache --python /opt/venv/bin/python --no-deps --no-build-isolation \
        --editable . && \
    python -m compileall -q src && \
    install -d -m 1777 /study && \
    ln -s /study/data /study/results /study/logs /study/.snakemake ./

# A user without a name has these from nowhere else; some libraries ask for both.
ENV HOME=/tmp USER=robustviews \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ROBUSTVIEWS_IMAGE=unknown
# By number: some clusters refuse an image whose user they cannot tell from root.
USER 1000:1000
ENTRYPOINT ["entrypoint"]
CMD ["robustviews", "doctor"]

ARG BASE_IMAGE
LABEL org.opencontainers.image.title=robustviews \
      org.opencontainers.image.description="Adversarially robust self-supervised learning: run a study, trust its numbers" \
      org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.base.name=$BASE_IMAGE \
      robustviews.requirements.lock=${LOCK:+sha256:$LOCK}
