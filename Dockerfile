# A server for one run, mounted at /run. Built in no test.
FROM python:3.11-slim
WORKDIR /llmft
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY conf conf
# the CPU build of torch; for a GPU take a CUDA base image and leave the index away
RUN pip install --no-cache-dir --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
 && pip install --no-cache-dir --constraint constraints.txt ".[serve]" \
 && useradd --create-home llmft
USER llmft
WORKDIR /home/llmft
EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"
# other machines reach it, so it wants LLMFT_API_KEY
ENTRYPOINT ["python", "-m", "llmft", "serve", "serve.host=0.0.0.0"]
CMD ["run=/run"]
