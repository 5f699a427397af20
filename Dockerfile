# The inference image: grand-challenge jobs, /input -> /output. Built by build.sh.

# The official image of the torch release that requirements.txt pins, with CUDA. Any image with that torch and a
# Python whose command is `python` will do, e.g. one from a local registry.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
FROM ${BASE_IMAGE}

# Grand-challenge refuses root. The number is fixed, so that folders can be prepared for it; no system image uses it.
RUN groupadd --gid 10001 h2aseg \
    && useradd --uid 10001 --gid h2aseg --create-home --no-log-init h2aseg

# Nothing in it gives another user's rights, and nothing compiles: PyTorch's image has gcc for torch.compile, which is
# not used here.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && if command -v gcc > /dev/null; then apt-get purge --yes --auto-remove gcc; fi

WORKDIR /opt/h2aseg

# Before the code, so that a change of the code does not install everything again.
# The lock leaves out torch, which the base image has; the second command fails where that is another release.
# PIP_BREAK_SYSTEM_PACKAGES: some base images mark their only Python as managed by the distribution.
COPY requirements.txt requirements.lock ./
RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
    python -m pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.lock \
    && PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install --no-cache-dir --no-index --no-deps "$(grep '^torch==' requirements.txt)"

# Root's, so that a job can change neither.
COPY weights weights
COPY algorithm algorithm

# Readable for all, which a clone made under a strict umask is not; what is so already is left, or it would be stored
# twice. The image runs read-only, so bytecode that is not written now would be compiled anew for every case.
RUN find weights algorithm \( ! -perm -444 -o -perm /022 -o -type d ! -perm -111 \) -exec chmod a+rX,go-w {} + \
    && python -m compileall -q algorithm
# DONTWRITEBYTECODE: nothing is written outside /output. UNBUFFERED: progress reaches the log as it happens.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The edition, where grand-challenge's sockets do not tell: a first call of AutoPET V has no clicks. Empty: they do.
ARG EDITION=
ENV H2ASEG_EDITION=${EDITION}

# What exactly this image is. Last, because the values change with every build.
ARG VERSION=unknown
ARG REVISION=unknown
ARG WEIGHTS_SHA256=unknown
# How grand-challenge is to run it: `invoke` (a server, started once) or `exec` (once per case).
ARG API_METHOD=invoke
ENV H2ASEG_API_METHOD=${API_METHOD}
LABEL org.grand-challenge.api-method="${API_METHOD}" \
      org.opencontainers.image.title="H2ASeg" \
      org.opencontainers.image.description="Tumour segmentation in PET/CT as a grand-challenge algorithm" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      h2aseg.weights.sha256="${WEIGHTS_SHA256}"

USER 10001:10001
# One image for both ways: without a command it serves where grand-challenge says `invoke`, or where it is labelled so and
# nothing lies in /input yet, as in the starter kit's local test; else it does one job.
ENTRYPOINT ["python", "-m", "algorithm"]
