# One image for every Airflow service of docker-compose.yaml: the packages of requirements.lock, checked by hash,
# and this project's DAGs, plugins, campaigns and templates. What runs is what was tested.

FROM python:3.11.14-slim-bookworm AS packages
RUN pip install --no-cache-dir uv==0.13.9
COPY requirements.txt requirements.lock ./
RUN uv venv /opt/packages \
 && uv pip install --python /opt/packages/bin/python --no-cache --require-hashes \
      --requirements requirements.txt --constraints requirements.lock

FROM python:3.11.14-slim-bookworm
ENV AIRFLOW_HOME=/opt/airflow \
    PATH=/opt/packages/bin:$PATH \
    PYTHONPATH=/opt/airflow/plugins \
    PYTHONUNBUFFERED=1
RUN useradd --uid 50000 --home-dir /opt/airflow airflow \
 && install --directory --owner airflow /opt/airflow /opt/airflow/logs /opt/airflow/witness /opt/airflow/dry-runs
COPY --from=packages /opt/packages /opt/packages
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
COPY include /opt/airflow/include
USER airflow
WORKDIR /opt/airflow
