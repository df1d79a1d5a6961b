# Two images from one wheel:
#
#   docker build --target exporter -t gpu-exporter .
#   docker build --target advisor -t gpu-advisor .
#
# No RUN --mount, so that the legacy builder works.

ARG PYTHON_IMAGE=python:3.12.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY advisor advisor
# advisor/gpu_advisor/documents/runbooks links there.
COPY docs/runbooks docs/runbooks
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# Virtual environments are built here and copied without pip.
FROM wheel AS exporter-environment
COPY docker/requirements-exporter.txt ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r requirements-exporter.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM wheel AS advisor-environment
COPY docker/requirements-advisor.txt ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r requirements-advisor.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
# A numeric user, so that Kubernetes can verify that it is not root. The directory is for the advisor's state: a new
# volume inherits its owner.
RUN groupadd --gid 10001 gpu \
    && useradd --uid 10001 --gid gpu --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gpu \
    && install -d -o gpu -g gpu -m 0700 /var/lib/gpu-advisor
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY docker/healthcheck.py /usr/local/lib/gpu-advisor/healthcheck.py
USER 10001:10001
WORKDIR /tmp

FROM runtime AS exporter
COPY --from=exporter-environment /opt/venv /opt/venv
ENV MALLOC_ARENA_MAX=2
EXPOSE 9816
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-I", "/usr/local/lib/gpu-advisor/healthcheck.py", "http://127.0.0.1:9816/-/healthy"]
ENTRYPOINT ["gpu-exporter"]
CMD ["--web.listen-address=0.0.0.0:9816"]

FROM runtime AS advisor
COPY --from=advisor-environment /opt/venv /opt/venv
VOLUME /var/lib/gpu-advisor
EXPOSE 9817
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/usr/local/lib/gpu-advisor/healthcheck.py", "http://127.0.0.1:9817/-/healthy"]
ENTRYPOINT ["gpu-advisor"]
CMD ["serve", "--config", "/etc/gpu-advisor/advisor.yml"]
