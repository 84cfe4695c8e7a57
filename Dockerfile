# A site may pin a digest: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY requirements/runtime.lock requirements/quickstart.lock requirements/
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --require-hashes --requirement requirements/runtime.lock
# The build tools, at the hashes of the one lock that holds them; all of this stays behind in this stage.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement requirements/quickstart.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY migrations migrations
COPY config config
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/gateway/bin/pip install --no-deps /wheels/*.whl \
    && /opt/gateway/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
# Spooled uploads go to a folder of their own, so that the root file system can be read-only.
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && install -d -o 10001 -g 10001 -m 0700 /var/spool/pixapi-gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_SERVER__SPOOL_DIR=/var/spool/pixapi-gateway
USER 10001:10001
EXPOSE 8080
# Without a proxy, whatever HTTP_PROXY says. The image has no curl.
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener as b; b(ProxyHandler({})).open('http://127.0.0.1:8080/healthz', timeout=3)"]
ENTRYPOINT ["pixapi-gateway"]
CMD ["serve", "--host", "0.0.0.0"]
