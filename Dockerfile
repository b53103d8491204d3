# docker build -t lightning-cells . && docker run --rm -v "$PWD:/work" lightning-cells track my_frames --out my_RES
# On a GPU: docker run --gpus all. Without one, --build-arg PIP_EXTRA_INDEX_URL=(the index of torch's CPU builds) leaves
# out 2 GB of CUDA.
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL=
COPY pyproject.toml constraints.txt README.md /src/
COPY lightning_cells /src/lightning_cells
COPY conf /src/conf
COPY sweeps /src/sweeps
RUN pip install --no-cache-dir --constraint /src/constraints.txt /src \
    && useradd --create-home --uid 1000 cells
USER 1000
WORKDIR /work
ENTRYPOINT ["lightning-cells"]
CMD ["--help"]
