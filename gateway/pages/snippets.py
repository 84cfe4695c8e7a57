"""Code to copy: how programs in six languages reach the gateway. Pure; what is made here is text, not markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Language = Literal["curl", "python", "javascript", "go", "java", "php"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: dict[Language, str] = {
    "curl": "curl",
    "python": "Python",
    "javascript": "JavaScript",
    "go": "Go",
    "java": "Java",
    "php": "PHP",
}
# What has to be installed first.
NEEDS: dict[Language, str] = {
    "python": "pip install openai",
    "javascript": "npm install openai",
}
PLACEHOLDER = "pxg_…"


@dataclass(frozen=True, slots=True)
class Snippets:
    """The environment both programs read, one that waits for an image, one that submits and asks for the outcome."""

    environment: str
    image: str
    task: str


def named(text: str | None) -> Language:
    """The language of this name; curl for any other."""
    return next((one for one in LANGUAGES if one == text), "curl")


def snippets(language: Language, origin: str, key: str = PLACEHOLDER) -> Snippets:
    """The code in a language; `origin` is the gateway's address without a path, `key` what stands for the team key.

    Only the environment holds them, so the programs can be kept under version control.
    """
    environment = f'export OPENAI_BASE_URL="{origin}/v1"\nexport OPENAI_API_KEY="{key}"'
    return Snippets(environment, _IMAGE[language], _TASK[language])


_IMAGE: Mapping[Language, str] = {
    "curl": """\
curl "$OPENAI_BASE_URL/images/generations" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "gemini-3-pro-image-preview",
    "prompt": "A cinematic product photo of a ceramic coffee cup",
    "size": "1024x1024"
  }'
""",
    "python": """\
from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

answer = client.images.generate(
    model="gemini-3-pro-image-preview",
    prompt="A cinematic product photo of a ceramic coffee cup",
    size="1024x1024",
)
print(answer.data[0].url)
""",
    "javascript": """\
import OpenAI from "openai";

const client = new OpenAI(); // reads OPENAI_BASE_URL and OPENAI_API_KEY

const answer = await client.images.generate({
  model: "gemini-3-pro-image-preview",
  prompt: "A cinematic product photo of a ceramic coffee cup",
  size: "1024x1024",
});
console.log(answer.data[0].url);
""",
    "go": """\
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := strings.NewReader(`{
		"model": "gemini-3-pro-image-preview",
		"prompt": "A cinematic product photo of a ceramic coffee cup",
		"size": "1024x1024"
	}`)
	request, err := http.NewRequest("POST", os.Getenv("OPENAI_BASE_URL")+"/images/generations", body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
	request.Header.Set("Content-Type", "application/json")

	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	result, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(result))
}
""",
    "java": """\
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

class PixapiExample {
  public static void main(String[] args) throws Exception {
    String body = \"""
      {
        "model": "gemini-3-pro-image-preview",
        "prompt": "A cinematic product photo of a ceramic coffee cup",
        "size": "1024x1024"
      }
      \""";
    HttpRequest request = HttpRequest.newBuilder()
      .uri(URI.create(System.getenv("OPENAI_BASE_URL") + "/images/generations"))
      .header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
      .header("Content-Type", "application/json")
      .POST(HttpRequest.BodyPublishers.ofString(body))
      .build();

    HttpResponse<String> response = HttpClient.newHttpClient()
      .send(request, HttpResponse.BodyHandlers.ofString());
    System.out.println(response.body());
  }
}
""",
    "php": """\
<?php
$ch = curl_init(getenv("OPENAI_BASE_URL") . "/images/generations");
curl_setopt_array($ch, [
  CURLOPT_RETURNTRANSFER => true,
  CURLOPT_POST => true,
  CURLOPT_HTTPHEADER => [
    "Authorization: Bearer " . getenv("OPENAI_API_KEY"),
    "Content-Type: application/json",
  ],
  CURLOPT_POSTFIELDS => json_encode([
    "model" => "gemini-3-pro-image-preview",
    "prompt" => "A cinematic product photo of a ceramic coffee cup",
    "size" => "1024x1024",
  ]),
]);

echo curl_exec($ch);
""",
}

# `Prefer: wait` holds the answer back until the task's status changes: one request in place of many.
_TASK: Mapping[Language, str] = {
    "curl": """\
curl "$OPENAI_BASE_URL/async/images/generations" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "gemini-3-pro-image-preview",
    "prompt": "A cinematic product photo of a ceramic coffee cup",
    "size": "1024x1024"
  }'

# The answer names the task's id. Ask until its status is completed or failed:
curl "$OPENAI_BASE_URL/tasks/$TASK_ID" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Prefer: wait=30"
""",
    "python": """\
from openai import OpenAI

client = OpenAI()

task = client.post(
    "/async/images/generations",
    body={
        "model": "gemini-3-pro-image-preview",
        "prompt": "A cinematic product photo of a ceramic coffee cup",
        "size": "1024x1024",
    },
    cast_to=object,
)
while task["status"] not in ("completed", "failed"):
    task = client.get(
        f"/tasks/{task['id']}",
        cast_to=object,
        options={"headers": {"Prefer": "wait=30"}},
    )
print(task["status"], task.get("result"))
""",
    "javascript": """\
import OpenAI from "openai";

const client = new OpenAI();

let task = await client.post("/async/images/generations", {
  body: {
    model: "gemini-3-pro-image-preview",
    prompt: "A cinematic product photo of a ceramic coffee cup",
    size: "1024x1024",
  },
});
while (!["completed", "failed"].includes(task.status)) {
  task = await client.get(`/tasks/${task.id}`, { headers: { Prefer: "wait=30" } });
}
console.log(task.status, JSON.stringify(task.result));
""",
    "go": """\
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

type Task struct {
	ID     string          `json:"id"`
	Status string          `json:"status"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

func call(method, path, body string) Task {
	request, err := http.NewRequest(method, os.Getenv("OPENAI_BASE_URL")+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Prefer", "wait=30")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	var task Task
	if err := json.NewDecoder(response.Body).Decode(&task); err != nil {
		panic(err)
	}
	if response.StatusCode != http.StatusOK {
		panic(response.Status + " " + string(task.Error))
	}
	return task
}

func main() {
	task := call("POST", "/async/images/generations", `{
		"model": "gemini-3-pro-image-preview",
		"prompt": "A cinematic product photo of a ceramic coffee cup",
		"size": "1024x1024"
	}`)
	for task.Status != "completed" && task.Status != "failed" {
		task = call("GET", "/tasks/"+task.ID, "")
	}
	fmt.Println(task.Status, string(task.Result))
}
""",
    "java": """\
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.regex.Pattern;

class PixapiExample {
  static final HttpClient CLIENT = HttpClient.newHttpClient();

  static String call(String path, HttpRequest.BodyPublisher body) throws Exception {
    HttpRequest request = HttpRequest.newBuilder()
      .uri(URI.create(System.getenv("OPENAI_BASE_URL") + path))
      .header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
      .header("Content-Type", "application/json")
      .header("Prefer", "wait=30")
      .method(body == null ? "GET" : "POST", body == null ? HttpRequest.BodyPublishers.noBody() : body)
      .build();
    HttpResponse<String> response = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
    if (response.statusCode() != 200) throw new IllegalStateException(response.body());
    return response.body();
  }

  static String field(String json, String name) { // use your JSON library instead
    var found = Pattern.compile("\\"" + name + "\\"\\\\s*:\\\\s*\\"([^\\"]*)\\"").matcher(json);
    return found.find() ? found.group(1) : "";
  }

  public static void main(String[] args) throws Exception {
    String task = call("/async/images/generations", HttpRequest.BodyPublishers.ofString(\"""
      {
        "model": "gemini-3-pro-image-preview",
        "prompt": "A cinematic product photo of a ceramic coffee cup",
        "size": "1024x1024"
      }
      \"""));
    String id = field(task, "id");
    while (!field(task, "status").matches("completed|failed")) {
      task = call("/tasks/" + id, null);
    }
    System.out.println(task);
  }
}
""",
    "php": """\
<?php
function call(string $path, ?array $body = null): array {
  $ch = curl_init(getenv("OPENAI_BASE_URL") . $path);
  curl_setopt_array($ch, [
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_HTTPHEADER => [
      "Authorization: Bearer " . getenv("OPENAI_API_KEY"),
      "Content-Type: application/json",
      "Prefer: wait=30",
    ],
  ]);
  if ($body !== null) {
    curl_setopt($ch, CURLOPT_POSTFIELDS, json_encode($body));
  }
  $answer = json_decode(curl_exec($ch), true);
  if (curl_getinfo($ch, CURLINFO_RESPONSE_CODE) !== 200) {
    throw new RuntimeException($answer["error"]["message"]);
  }
  return $answer;
}

$task = call("/async/images/generations", [
  "model" => "gemini-3-pro-image-preview",
  "prompt" => "A cinematic product photo of a ceramic coffee cup",
  "size" => "1024x1024",
]);
while (!in_array($task["status"], ["completed", "failed"])) {
  $task = call("/tasks/" . $task["id"]);
}
echo $task["status"], " ", json_encode($task["result"] ?? null);
""",
}
