# The key service. No image has been built of this file where it was written, for want of a Docker engine: it is linted,
# and the tests run its commands without one (docs/guides/containers.md).
#
#     docker build --tag keystead .
#     docker build --tag keystead --build-arg EXTRAS=server,postgres,aws .
#
# There is no secret in it: the KEK, or what opens the KMS, comes when it runs.

FROM python:3.13-slim AS build
ARG EXTRAS=server,postgres
WORKDIR /build
RUN ["python", "-m", "venv", "/opt/keystead"]
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/keystead/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.13-slim
COPY --from=build /opt/keystead /opt/keystead
ENV PATH=/opt/keystead/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/nonexistent \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    KEYSTEAD_ENV=production \
    KEYSTEAD_SERVER_HOST=0.0.0.0 \
    KEYSTEAD_SERVER_PORT=3000
WORKDIR /
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: who restarts what is unhealthy must not do so because a database is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['KEYSTEAD_SERVER_PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["keystead"]
CMD ["serve"]
