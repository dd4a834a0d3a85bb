# The image of the site: every container of docker-compose.yml runs it with another command.
# BASE: any image with Python 3.11 to 3.13, e.g. one from a registry of your own.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS packages
COPY requirements/base.txt /tmp/base.txt
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/base.txt

FROM ${BASE}
COPY --from=packages /opt/venv /opt/venv
COPY . /opt/site
WORKDIR /opt/site
RUN /opt/venv/bin/python -m compileall -q dashboard deployments mms \
 && mkdir -m 700 /data \
 && chown 10001:10001 /data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/data HOST=0.0.0.0 PORT=8000
# No VOLUME: what keeps nothing (worker, beat) would leave a nameless one behind whenever its container goes.
USER 10001:10001
EXPOSE 8000 8001
CMD ["python", "manage.py", "up", "--logs"]
