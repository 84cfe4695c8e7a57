"""Real clients that offer an upgrade with each request: Java's HttpClient and curl --http2."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.server.raw_http import Served, served

BODY = '{"model": "gemini-3-pro-image-preview", "prompt": "ein Haus", "n": 1}'
JAVA = """
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;

public class Post {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        byte[] body = args[1].getBytes("UTF-8");
        HttpRequest.BodyPublisher[] publishers = {
            BodyPublishers.ofByteArray(body),
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)),
            BodyPublishers.ofByteArray(new byte[200000]),
            BodyPublishers.ofByteArray(body),
        };
        for (HttpRequest.BodyPublisher publisher : publishers) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).POST(publisher).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            String length = answer.body().replaceAll(".*\\"length\\": ([0-9]+).*", "$1");
            System.out.println(answer.statusCode() + " " + answer.version() + " " + length);
        }
    }
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as running:
        yield running


def test_java_http_client(server: Served, tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("no JDK on PATH: Java's HttpClient is not tried")
    source = tmp_path / "Post.java"
    source.write_text(JAVA)
    command = [
        java,
        "-XX:TieredStopAtLevel=1",
        str(source),
        f"http://127.0.0.1:{server.port}/v1/images",
        BODY,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    size = len(BODY.encode())
    expected = [f"200 HTTP_1_1 {length}" for length in (size, size, 200_000, size)]
    assert done.stdout.splitlines() == expected, done.stderr


def test_curl_http2(server: Served) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on PATH")
    command = [curl, "-sS", "--http2", "-w", "%{http_version} %{http_code}", "--data-binary", BODY]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}/v1/images", "-o", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == "1.1 200", done.stderr
    assert server.app.scopes[-1]["method"] == "POST"
    assert not {b"upgrade", b"http2-settings"} & dict(server.app.scopes[-1]["headers"]).keys()
